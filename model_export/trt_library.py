"""TensorRT or TensorRT for RTX, whichever is installed: one API, two packages."""

import importlib
import logging
import types
from dataclasses import dataclass
from typing import Any, Final

from service.engines.plan import Runtime

log = logging.getLogger("alignseg.build")
# The RTX wheels from a package registry bring `tensorrt_rtx_bindings`; its maker's own `tensorrt_rtx` wraps that.
_MODULES: Final[dict[Runtime, tuple[str, ...]]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
# An ONNX function is imported once for each of its calls, with the names of its nodes; they are told apart by layer.
_HARMLESS: Final = ("already exists, the output tensors of this new instance",)


class NoTensorRTError(Exception):
    """TensorRT is not installed; the message says what to install."""


@dataclass(frozen=True, slots=True)
class Library:
    """trt: the module. errors: what it complained of so far; it reports failures there and returns None."""

    trt: Any
    runtime: Runtime
    logger: Any
    errors: list[str]

    @property
    def version(self) -> str:
        """E.g. "11.4.0.106"."""
        return str(self.trt.__version__)

    def require(self, made: Any, what: str) -> Any:
        """`made`, unless it is None or False. Raises RuntimeError with what TensorRT said."""
        if made is None or made is False:
            raise RuntimeError(f"{self.runtime} {self.version} could not {what}:\n" + "\n".join(self.errors[-8:]))
        return made


def load(runtime: Runtime | None = None) -> Library:
    """Import `runtime`, or the first that is installed, TensorRT before TensorRT for RTX.

    Raises NoTensorRTError.
    """
    for candidate in (runtime,) if runtime else tuple(_MODULES):
        for name in _MODULES[candidate]:
            module = _import(name)
            if module is not None:
                errors: list[str] = []
                return Library(module, candidate, _logger(module, errors), errors)
    raise NoTensorRTError(
        f"{runtime or 'neither tensorrt nor tensorrt_rtx'} is not installed. On a GPU machine: pip install "
        "-e '.[export,tensorrt]'. Without a GPU, or for GeForce and RTX cards: pip install -e '.[export,rtx]'."
    )


def _import(name: str) -> types.ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        log.debug("no %s: %s", name, error)
        return None


def _logger(trt: Any, errors: list[str]) -> Any:
    """A TensorRT logger that keeps errors, and passes them and warnings on to Python's logging."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in {trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR}:
                errors.append(message)
                log.error("%s", message)
            elif severity == trt.ILogger.WARNING and not any(text in message for text in _HARMLESS):
                log.warning("%s", message)

    return Logger()
