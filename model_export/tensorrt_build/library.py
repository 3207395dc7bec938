"""TensorRT or TensorRT for RTX, whichever is installed: one API, two packages."""

import logging
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from service.engines.tensorrt.library import installed, logger
from service.errors import EngineUnavailable
from service.model_folder.engine_plan import Runtime

log = logging.getLogger("alignseg.build")
T = TypeVar("T")
# TensorRT imports an ONNX function once for each call, with the same node names; it distinguishes them by layer.
_HARMLESS: Final = ("already exists, the output tensors of this new instance",)


class NoTensorRTError(Exception):
    """TensorRT is not installed; the message says what to install."""


@dataclass(frozen=True, slots=True)
class Library:
    """trt: the module. errors: the latest messages of its logger; its calls only return None or False."""

    trt: Any
    runtime: Runtime
    logger: Any
    errors: list[str]

    @property
    def version(self) -> str:
        """E.g. "11.4.0.106"."""
        return str(self.trt.__version__)

    def require(self, result: T, action: str) -> T:
        """Return `result`. Raises RuntimeError, with TensorRT's messages, when it is None or False.

        action: what the call was to do, for the message.
        """
        if result is None or result is False:
            reasons = "\n".join(self.errors[-8:]) or "TensorRT logged no reason"
            raise RuntimeError(f"{self.runtime} {self.version} could not {action}:\n{reasons}")
        return result


def load(runtime: Runtime | None = None) -> Library:
    """Import `runtime`, or the first that is installed, TensorRT before TensorRT for RTX.

    Raises NoTensorRTError.
    """
    try:
        module, name = installed(runtime)
    except EngineUnavailable:
        raise NoTensorRTError(
            f"{f'{runtime} is not' if runtime else 'neither tensorrt nor tensorrt_rtx is'} installed. On a GPU "
            "machine: pip install -e '.[export,tensorrt]'. Without a GPU, or for GeForce and RTX cards: "
            "pip install -e '.[export,rtx]'"
        ) from None
    errors: list[str] = []
    return Library(module, name, logger(module, log, errors, _is_harmless), errors)


def _is_harmless(message: str) -> bool:
    return any(text in message for text in _HARMLESS)
