"""Chooses the runtime that serves a model, and the devices, and logs why."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Final

from service.engines import cuda, reference_check
from service.engines.cuda import Device
from service.engines.onnxruntime.cuda_engine import OnnxCudaEngine
from service.engines.onnxruntime.engine import ROLE, OnnxRuntimeEngine
from service.engines.openvino import compile_cache, quantization
from service.engines.openvino.engine import OpenVinoEngine, Precision
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
OpenOnCpu = Callable[[Settings, Manifest, Path], Engine]
Selection = tuple[list[Engine], list[str]]
"""The engines, and each faster engine that was skipped, with the reason."""


def open_engines(settings: Settings, manifest: Manifest, *, only_one: bool = False) -> list[Engine]:
    """Load the model into the runtime that the settings name, or into the fastest that works, on each GPU.

    auto tries, in this order: TensorRT, ONNX Runtime on the GPU, OpenVINO in int8, in bf16 and in float32, ONNX Runtime
    on the CPU. It takes the first that is installed and, but for the last, agrees with the last on a street scene.
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


def _skipped(name: str, error: Exception) -> str:
    return f"{name} ({str(error).removesuffix('.')})"


def _fastest(settings: Settings, manifest: Manifest, onnx: Path, only_one: bool) -> Selection:
    try:
        cuda.first_device()
    except EngineUnavailable as error:
        reason = error if cuda.has_driver() else EngineUnavailable("this machine has no NVIDIA GPU")
        return _fastest_on_cpu(settings, manifest, onnx, [_skipped(" and ".join(_ON_GPU), reason)])
    skipped: list[str] = []
    check = _reference_check(settings, manifest, onnx)
    for name in _ON_GPU:
        try:
            return _open(name, settings, manifest, onnx, only_one, check), skipped
        except DeviceLost:
            raise
        except (EngineUnavailable, ManifestError, EngineError) as error:  # the next one can still serve
            skipped.append(_skipped(name, error))
    return _fastest_on_cpu(settings, manifest, onnx, skipped)


def _fastest_on_cpu(settings: Settings, manifest: Manifest, onnx: Path, skipped: list[str]) -> Selection:
    """The fastest engine that agrees with the reference, or the reference itself."""
    check = _reference_check(settings, manifest, onnx)
    for name in _FASTEST_ON_CPU:
        try:
            engine = _ON_CPU[name](settings, manifest, onnx)
            check.require_agreement(engine)
        except (EngineUnavailable, ManifestError, EngineError) as error:
            skipped.append(_skipped(name, error))
        else:
            return [engine], skipped
    return [_onnx_cpu(settings, manifest, onnx)], skipped


def _reference_check(settings: Settings, manifest: Manifest, onnx: Path) -> ReferenceCheck:
    if reference_check.ROLE in manifest.files:
        return ReferenceCheck.load(manifests.verified_file(settings.model, manifest, reference_check.ROLE))
    with closing(_onnx_cpu(settings, manifest, onnx)) as reference:  # a folder that an earlier version exported
        return ReferenceCheck.from_reference(reference, manifest.input.buckets[0])


def _open(
    name: str, settings: Settings, manifest: Manifest, onnx: Path, only_one: bool, check: ReferenceCheck | None = None
) -> list[Engine]:
    """check: what the first lane of each GPU must agree with; an engine chosen by name is not checked."""
    if name in _ON_CPU:
        return [_ON_CPU[name](settings, manifest, onnx)]
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


def _openvino(settings: Settings, manifest: Manifest, onnx: Path, precision: Precision = "float32") -> Engine:
    ranges = None
    if precision == "int8":
        if quantization.ROLE not in manifest.files:
            raise EngineUnavailable("the model has no int8 ranges; measure them with `alignseg export --calibration`")
        ranges = quantization.load(manifests.verified_file(settings.model, manifest, quantization.ROLE))
    return OpenVinoEngine(
        onnx,
        precision=precision,
        ranges=ranges,
        threads=settings.intra_op_threads,
        sizes=manifest.input.buckets,
        cache=compile_cache.default_folder(),
    )


def _onnx_cpu(settings: Settings, manifest: Manifest, onnx: Path) -> Engine:
    return OnnxRuntimeEngine(onnx, intra_op_threads=settings.intra_op_threads)


_ON_GPU: dict[str, OpenOnGpu] = {"tensorrt": _tensorrt, "onnxruntime-cuda": _onnx_cuda}  # the faster one first
_ON_CPU: dict[str, OpenOnCpu] = {
    "openvino-int8": partial(_openvino, precision="int8"),
    "openvino-bf16": partial(_openvino, precision="bf16"),
    "openvino-cpu": _openvino,
    "onnxruntime-cpu": _onnx_cpu,
}
_FASTEST_ON_CPU: Final = ("openvino-int8", "openvino-bf16", "openvino-cpu")  # the fastest first
