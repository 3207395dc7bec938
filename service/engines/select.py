"""Which runtime serves a model, and why."""

import logging
from collections.abc import Callable
from pathlib import Path

from service import manifest as manifests
from service.contracts import Engine
from service.engines import background_build, cuda_runtime, plan, tensorrt
from service.engines.onnx_cuda import OnnxCudaEngine
from service.engines.onnx_runtime import ROLE, OnnxRuntimeEngine
from service.engines.openvino import OpenVinoEngine
from service.errors import EngineError, EngineLost, EngineUnavailable, ManifestError
from service.manifest import Manifest
from service.settings import Settings

log = logging.getLogger("alignseg.engine")
Opener = Callable[[Settings, Manifest, Path], Engine]


def open_engine(settings: Settings, manifest: Manifest) -> Engine:
    """Load the model into the runtime that the settings name, or into the best one there is.

    auto: TensorRT, ONNX Runtime on the GPU, ONNX Runtime on the CPU.
    Raises EngineUnavailable, ManifestError or EngineError.
    """
    onnx = manifests.verified_file(settings.model, manifest, ROLE)
    if settings.engine == "auto":
        engine, why = _best(settings, manifest, onnx)
    else:
        engine, why = _OPENERS[settings.engine](settings, manifest, onnx), f"ALIGNSEG_ENGINE={settings.engine}"
    log.info("%s serves %s %s from %s (%s)", engine.name, manifest.name, manifest.version, settings.model, why)
    return engine


def _best(settings: Settings, manifest: Manifest, onnx: Path) -> tuple[Engine, str]:
    """The engine, and why the better ones were not taken."""
    try:
        cuda_runtime.first_device()
    except EngineUnavailable as error:
        found = f"no GPU: {error}" if cuda_runtime.driver_is_here() else "this machine has no NVIDIA GPU"
        return _onnx_cpu(settings, manifest, onnx), f"auto; {found}"
    why: list[str] = []
    for name in ("tensorrt", "onnxruntime-cuda"):
        try:
            return _OPENERS[name](settings, manifest, onnx), "; ".join(["auto", *why])
        except EngineLost:
            raise
        except (EngineUnavailable, ManifestError, EngineError) as error:  # no reason not to serve
            why.append(f"not {name}: {error}")
    return _onnx_cpu(settings, manifest, onnx), "; ".join(["auto", *why])


def _tensorrt(settings: Settings, manifest: Manifest, onnx: Path) -> Engine:
    device = cuda_runtime.first_device()
    try:
        found, info = plan.find(settings.model, tensorrt.machine(device), manifest.files[ROLE].sha256)
    except EngineUnavailable:
        if settings.build == "auto":
            background_build.start(settings.model, manifest.files[ROLE].sha256)
        raise
    return tensorrt.TensorRtEngine(found, info, device)


def _onnx_cuda(settings: Settings, manifest: Manifest, onnx: Path) -> Engine:
    return OnnxCudaEngine(onnx)


def _openvino(settings: Settings, manifest: Manifest, onnx: Path) -> Engine:
    return OpenVinoEngine(onnx, threads=settings.intra_op_threads)


def _onnx_cpu(settings: Settings, manifest: Manifest, onnx: Path) -> Engine:
    return OnnxRuntimeEngine(onnx, intra_op_threads=settings.intra_op_threads)


_OPENERS: dict[str, Opener] = {
    "tensorrt": _tensorrt,
    "onnxruntime-cuda": _onnx_cuda,
    "openvino-cpu": _openvino,
    "onnxruntime-cpu": _onnx_cpu,
}
