"""Imports TensorRT or TensorRT for RTX, whichever is installed, and hides their differences."""

import importlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from service.engines.cuda import Device
from service.errors import EngineUnavailable
from service.model_folder import engine_plan
from service.model_folder.engine_plan import Machine, PlanInfo, Runtime
from service.types import Size

# The RTX wheels on the package index contain `tensorrt_rtx_bindings`; NVIDIA's own `tensorrt_rtx` wraps it.
MODULES: Final[dict[Runtime, tuple[str, ...]]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}


def installed(runtime: Runtime | None = None) -> tuple[Any, Runtime]:
    """Import `runtime`, or the first that is installed, TensorRT before TensorRT for RTX.

    Returns the module and which of the two it is. Raises EngineUnavailable when it is not installed.
    """
    for candidate in (runtime,) if runtime else tuple(MODULES):
        for name in MODULES[candidate]:
            try:
                return importlib.import_module(name), candidate
            except ImportError:
                continue
    missing = f"{runtime} is not" if runtime else "neither tensorrt nor tensorrt_rtx is"
    extra = "rtx" if runtime == "tensorrt_rtx" else "tensorrt"
    raise EngineUnavailable(f"{missing} installed. Install it with: pip install -e '.[gpu,{extra}]'")


def machines(device: Device) -> list[Machine]:
    """The GPU with each TensorRT that is installed: what plans may be for. Raises EngineUnavailable if none is."""
    each: list[Machine] = []
    for candidate in MODULES:
        try:
            trt, runtime = installed(candidate)
        except EngineUnavailable:
            continue
        each.append(Machine(device.name, device.compute_capability, runtime, str(trt.__version__)))
    if not each:
        installed()  # raises, and says what to install
    return list(dict.fromkeys(each))


def find_plan(folder: Path, device: Device, onnx_sha256: str, buckets: Sequence[Size]) -> tuple[Path, PlanInfo]:
    """The newest plan in the model folder that an installed TensorRT runs on `device`, with its description.

    Raises EngineUnavailable, with the reasons.
    """
    reasons: list[str] = []
    for machine in machines(device):
        try:
            return engine_plan.find(folder, machine, onnx_sha256, buckets)
        except EngineUnavailable as error:
            reasons.append(str(error))
    raise EngineUnavailable(" ".join(reasons))


def context_options(trt: Any, engine: Any) -> Any:
    """Options for execution contexts: the caller allocates scratch memory, and kernels are compiled before they run.

    TensorRT has the kernels of each shape in the plan. TensorRT for RTX compiles them on this machine, by default in
    the background while general kernels run; a CUDA graph captured meanwhile would keep the slow ones.
    """
    allocation = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    strategies = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
    if strategies is None:
        return allocation
    options = engine.create_runtime_config()
    options.set_execution_context_allocation_strategy(allocation)
    options.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
    return options


def logger(
    trt: Any, log: logging.Logger, errors: list[str], is_harmless: Callable[[str], bool] = lambda message: False
) -> Any:
    """A TensorRT logger that passes errors and warnings to `log`.

    errors: the latest eight errors are also put here. is_harmless: warnings to drop.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in {trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR}:
                errors.append(message)
                del errors[:-8]
                log.error("%s", message)
            elif severity == trt.ILogger.WARNING and not is_harmless(message):
                log.warning("%s", message)

    return Logger()
