"""TensorRT or TensorRT for RTX, whichever is installed: one API, two packages."""

import importlib
import logging
import types
from dataclasses import dataclass
from typing import Any, Final

from service.engines.tensorrt.library import MODULES, logger
from service.model_folder.engine_plan import Runtime

log = logging.getLogger("alignseg.build")
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
    for candidate in (runtime,) if runtime else tuple(MODULES):
        for name in MODULES[candidate]:
            module = _import(name)
            if module is not None:
                errors: list[str] = []
                return Library(module, candidate, logger(module, log, errors, _is_harmless), errors)
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


def _is_harmless(message: str) -> bool:
    return any(text in message for text in _HARMLESS)
