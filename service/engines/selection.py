"""Which runtime serves a model, on which devices, and why."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from service.engines import cuda, reference_check
from service.engines.cuda import Device
from service.engines.onnxruntime.cuda_engine import OnnxCudaEngine
from service.engines.onnxruntime.engine import ROLE, OnnxRuntimeEngine
from service.engines.openvino import compile_cache, quantization
from service.engines.openvino.engine import OpenVinoEngine, Precision
from service.engines.reference_check import SelfTest
from service.engines.tensorrt import background_build, library
from service.engines.tensorrt import engine as tensorrt
from service.errors import DeviceLost, EngineError, EngineOutOfMemory, EngineUnavailable, ManifestError
from service.model_folder import engine_plan
from service.model_folder import manifest as manifests
from service.model_folder.manifest import Manifest
from service.settings import Settings
from service.types import Engine

log = logging.getLogger("alignseg.engine")
LANES: Final = 2  # of a GPU: while one computes, the other copies
OpenOn = Callable[[Settings, Manifest, Path, Device, int], Iterator[Engine]]
OpenOnCpu = Callable[[Settings, Manifest, Path], Engine]


def open_engines(settings: Settings, manifest: Manifest, *, alone: bool = False) -> list[Engine]:
    """Load the model into the runtime that the settings name, or into the best one there is, on each GPU.

    auto: TensorRT, ONNX Runtime on the GPU, OpenVINO in int8, in bf16, in float32, ONNX Runtime on the CPU: the first
    that is installed, and on the CPU agrees with ONNX Runtime on a street. alone: one engine is enough.
    Raises EngineUnavailable, ManifestError or EngineError; then nothing stays loaded.
    """
    onnx = manifests.verified_file(settings.model, manifest, ROLE)
    if settings.engine == "auto":
        engines, why = _best(settings, manifest, onnx, alone)
    else:
        engines, why = _open(settings.engine, settings, manifest, onnx, alone), f"ALIGNSEG_ENGINE={settings.engine}"
    names = ", ".join(dict.fromkeys(engine.name for engine in engines))
    log.info("%s serves %s %s from %s (%s)", names, manifest.name, manifest.version, settings.model, why)
    return engines


def open_engine(settings: Settings, manifest: Manifest) -> Engine:
    """One engine, on the first GPU or the CPU; raises what open_engines raises."""
    return open_engines(settings, manifest, alone=True)[0]


def _best(settings: Settings, manifest: Manifest, onnx: Path, alone: bool) -> tuple[list[Engine], str]:
    """The engines, and why the better ones were not taken."""
    try:
        cuda.first_device()
    except EngineUnavailable as error:
        found = f"no GPU: {error}" if cuda.driver_is_here() else "this machine has no NVIDIA GPU"
        return _best_on_cpu(settings, manifest, onnx, [found])
    why: list[str] = []
    for name in _ON_GPU:
        try:
            return _open(name, settings, manifest, onnx, alone), "; ".join(["auto", *why])
        except DeviceLost:
            raise
        except (EngineUnavailable, ManifestError, EngineError) as error:  # no reason not to serve
            why.append(f"not {name}: {error}")
    return _best_on_cpu(settings, manifest, onnx, why)


def _best_on_cpu(settings: Settings, manifest: Manifest, onnx: Path, why: list[str]) -> tuple[list[Engine], str]:
    """The quickest that agrees with the reference; the reference itself when none does, or none is there."""
    reference = None
    if reference_check.ROLE in manifest.files:
        test = SelfTest.load(manifests.verified_file(settings.model, manifest, reference_check.ROLE))
    else:  # a folder of an older export
        reference = _onnx_cpu(settings, manifest, onnx)
        test = SelfTest.ask(reference, manifest.input.buckets[0])
    for name in _QUICK:
        try:
            engine = _ON_CPU[name](settings, manifest, onnx)
            test.require_agreement(engine)
        except (EngineUnavailable, ManifestError, EngineError) as error:
            why.append(f"not {name}: {error}")
        else:
            if reference is not None:
                reference.close()
            return [engine], "; ".join(["auto", *why])
    return [reference or _onnx_cpu(settings, manifest, onnx)], "; ".join(["auto", *why])


def _open(name: str, settings: Settings, manifest: Manifest, onnx: Path, alone: bool) -> list[Engine]:
    if name in _ON_CPU:
        return [_ON_CPU[name](settings, manifest, onnx)]
    engines: list[Engine] = []
    with ExitStack() as opened:
        for device in cuda.devices(cuda.load())[: 1 if alone else None]:
            for engine in _ON_GPU[name](settings, manifest, onnx, device, 1 if alone else LANES):
                opened.callback(engine.close)
                engines.append(engine)
        opened.pop_all()  # all are there: none is closed
    return engines


def _tensorrt(settings: Settings, manifest: Manifest, onnx: Path, device: Device, lanes: int) -> Iterator[Engine]:
    onnx_sha256 = manifest.files[ROLE].sha256
    try:
        here = library.machine(device)
        found, info = engine_plan.find(settings.model, here, onnx_sha256, manifest.input.buckets)
    except EngineUnavailable:
        if settings.build_engine == "auto":
            background_build.start(settings.model, f"{onnx_sha256} {manifest.input.buckets}")
        raise
    yield (first := tensorrt.TensorRtEngine(found, info, device))
    for _ in range(lanes - 1):
        try:
            yield tensorrt.TensorRtEngine(found, info, device, beside=first)
        except EngineOutOfMemory as error:
            log.warning("no memory for a second lane, so copies wait for the network: %s", error)


def _onnx_cuda(settings: Settings, manifest: Manifest, onnx: Path, device: Device, lanes: int) -> Iterator[Engine]:
    yield OnnxCudaEngine(onnx, device=device.index)  # one lane: a second would hold the weights again


def _openvino(settings: Settings, manifest: Manifest, onnx: Path, precision: Precision = "float32") -> Engine:
    ranges = None
    if precision == "int8":
        if quantization.ROLE not in manifest.files:
            raise EngineUnavailable("the model has no int8 ranges; `alignseg export --calibration` measures them.")
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


_ON_GPU: dict[str, OpenOn] = {"tensorrt": _tensorrt, "onnxruntime-cuda": _onnx_cuda}  # the better one first
_ON_CPU: dict[str, OpenOnCpu] = {
    "openvino-int8": partial(_openvino, precision="int8"),
    "openvino-bf16": partial(_openvino, precision="bf16"),
    "openvino-cpu": _openvino,
    "onnxruntime-cpu": _onnx_cpu,
}
_QUICK: Final = ("openvino-int8", "openvino-bf16", "openvino-cpu")  # the quickest first
