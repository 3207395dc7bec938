"""TensorRT or TensorRT for RTX, whichever is installed, and how they differ. The service imports them here alone."""

import importlib
import logging
from collections.abc import Callable
from typing import Any, Final

from service.engines.cuda import Device
from service.errors import EngineUnavailable
from service.model_folder.engine_plan import Machine, Runtime

# The RTX wheels from a package registry bring `tensorrt_rtx_bindings`; its maker's own `tensorrt_rtx` wraps that.
MODULES: Final[dict[Runtime, tuple[str, ...]]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}


def installed(wanted: Runtime | None = None) -> tuple[Any, Runtime]:
    """TensorRT's module and which of the two it is: `wanted`, or the first there is, TensorRT before TensorRT for RTX.

    Raises EngineUnavailable when it is not installed.
    """
    for runtime in (wanted,) if wanted else tuple(MODULES):
        for name in MODULES[runtime]:
            try:
                return importlib.import_module(name), runtime
            except ImportError:
                continue
    missing = f"{wanted} is not" if wanted else "neither tensorrt nor tensorrt_rtx is"
    extra = "rtx" if wanted == "tensorrt_rtx" else "tensorrt"
    raise EngineUnavailable(f"{missing} installed: pip install -e '.[gpu,{extra}]'.")


def machine(device: Device) -> Machine:
    """What plans must be for to run here. Raises EngineUnavailable without TensorRT."""
    trt, runtime = installed()
    return Machine(device.name, device.compute_capability, runtime, str(trt.__version__))


def context_options(trt: Any, engine: Any) -> Any:
    """What an execution context is made with: scratch memory from us, kernels for each shape before it first runs.

    TensorRT has those kernels in the plan. TensorRT for RTX compiles them here, by default in the background, while
    general ones stand in; a CUDA graph captured meanwhile would keep the slow ones for ever.
    """
    allocation = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    when = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
    if when is None:
        return allocation
    options = engine.create_runtime_config()
    options.set_execution_context_allocation_strategy(allocation)
    options.dynamic_shapes_kernel_specialization_strategy = when.EAGER
    return options


def logger(
    trt: Any, to: logging.Logger, errors: list[str], harmless: Callable[[str], bool] = lambda text: False
) -> Any:
    """A TensorRT logger that keeps errors in `errors`, and passes them and warnings on, except harmless ones."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in {trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR}:
                errors.append(message)
                del errors[:-8]
                to.error("%s", message)
            elif severity == trt.ILogger.WARNING and not harmless(message):
                to.warning("%s", message)

    return Logger()
