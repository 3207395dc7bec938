"""Chooses the runtime that serves a model, and the devices, and logs why."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from service.engines import cpu, cuda
from service.engines.cuda import Device
from service.engines.onnxruntime.cuda_engine import OnnxCudaEngine
from service.engines.onnxruntime.engine import ROLE
from service.engines.reference_check import ReferenceCheck
from service.engines.tensorrt import background_build, library
from service.engines.tensorrt.engine import TensorRtEngine
from service.errors import DeviceLost, EngineError, EngineOutOfMemory, EngineUnavailable, ManifestError
from service.model_folder import manifest as manifests
from service.model_folder.manifest import Manifest
from service.settings import Settings
from service.types import Engine

log = logging.getLogger("alignseg.engine")
LANES: Final = 2  # of a GPU: while one computes, the other copies
OpenOnGpu = Callable[[Settings, Manifest, Path, Device, int], Iterator[Engine]]
Selection = tuple[list[Engine], list[str]]
"""The engines, and each faster engine that was skipped, with the reason."""


def open_engines(settings: Settings, manifest: Manifest, *, only_one: bool = False) -> list[Engine]:
    """Load the model into the runtime that the settings name, or into the fastest that works, on each GPU.

    auto tries, in this order: TensorRT, ONNX Runtime on the GPU, OpenVINO in int8, in bf16 and in float32, ONNX Runtime
    on the CPU. It takes the first that is installed and, but for the last, agrees with the last on a street scene; int8
    must also be faster than float32 (cpu.py).
    only_one: open one engine on one device.
    Raises EngineUnavailable, ManifestError or EngineError; then nothing stays loaded.
    """
    onnx = manifests.verified_file(settings.model, manifest, ROLE)
    if settings.engine == "auto":
        engines, skipped = _fastest(settings, manifest, onnx, only_one)
    else:
        engines, skipped = _open(settings.engine, settings, manifest, onnx, only_one), []
    _log_selection(engines, settings, manifest, skipped)
    return engines


def open_engine(settings: Settings, manifest: Manifest) -> Engine:
    """One engine, on the first GPU or the CPU; raises what open_engines raises."""
    return open_engines(settings, manifest, only_one=True)[0]


def _log_selection(engines: Sequence[Engine], settings: Settings, manifest: Manifest, skipped: list[str]) -> None:
    names = ", ".join(dict.fromkeys(engine.name for engine in engines))
    model = f"{manifest.name} {manifest.version} from {settings.model}"
    reasons = f" Skipped: {'; '.join(skipped)}." if skipped else ""
    log.info("%s serves %s, chosen by ALIGNSEG_ENGINE=%s.%s", names, model, settings.engine, reasons)


def _fastest(settings: Settings, manifest: Manifest, onnx: Path, only_one: bool) -> Selection:
    try:
        cuda.first_device()
    except EngineUnavailable as error:
        reason = error if cuda.has_driver() else EngineUnavailable("this machine has no NVIDIA GPU")
        skipped = [cpu.why_skipped(" and ".join(_ON_GPU), reason)]
        return [cpu.fastest(settings, manifest, onnx, skipped)], skipped
    skipped = []
    check = cpu.load_check(settings, manifest, onnx)
    for name in _ON_GPU:
        try:
            return _open(name, settings, manifest, onnx, only_one, check), skipped
        except DeviceLost:
            raise
        except (EngineUnavailable, ManifestError, EngineError) as error:  # the next one can still serve
            skipped.append(cpu.why_skipped(name, error))
    return [cpu.fastest(settings, manifest, onnx, skipped)], skipped


def _open(
    name: str, settings: Settings, manifest: Manifest, onnx: Path, only_one: bool, check: ReferenceCheck | None = None
) -> list[Engine]:
    """check: what the first lane of each GPU must agree with; an engine chosen by name is not checked."""
    if name in cpu.OPEN:
        return [cpu.OPEN[name](settings, manifest, onnx)]
    engines: list[Engine] = []
    with ExitStack() as close_on_error:
        for device in cuda.devices(cuda.load())[: 1 if only_one else None]:
            for lane, engine in enumerate(_ON_GPU[name](settings, manifest, onnx, device, 1 if only_one else LANES)):
                close_on_error.callback(engine.close)
                engines.append(engine)
                if check is not None and lane == 0:
                    check.require_agreement(engine)
        close_on_error.pop_all()  # all opened: close none
    return engines


def _tensorrt(settings: Settings, manifest: Manifest, onnx: Path, device: Device, lanes: int) -> Iterator[Engine]:
    onnx_sha256 = manifest.files[ROLE].sha256
    try:
        plan, info = library.find_plan(settings.model, device, onnx_sha256, manifest.input.buckets)
    except EngineUnavailable:
        if settings.build_engine == "auto":
            background_build.start(settings.model, f"{onnx_sha256} {manifest.input.buckets}")
        raise
    first = TensorRtEngine(plan, info, device)
    first.warm_up()
    yield first
    for _ in range(lanes - 1):
        try:
            lane = TensorRtEngine(plan, info, device, share_weights_with=first)
            lane.warm_up()
            yield lane
        except EngineOutOfMemory as error:
            log.warning("GPU memory is too small for a second lane, so copies and inference do not overlap: %s", error)


def _onnx_cuda(settings: Settings, manifest: Manifest, onnx: Path, device: Device, lanes: int) -> Iterator[Engine]:
    yield OnnxCudaEngine(onnx, device=device.index)  # one lane: a second would hold the weights again


_ON_GPU: dict[str, OpenOnGpu] = {"tensorrt": _tensorrt, "onnxruntime-cuda": _onnx_cuda}  # the faster one first
