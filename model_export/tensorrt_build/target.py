"""Which GPU an engine is built for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from model_export.tensorrt_build.library import Library
from service.engines import cuda
from service.errors import EngineUnavailable

FP8_FROM: Final = 89  # Ada and Hopper
RTX_ARCHITECTURES: Final = (80, 86, 89, 120)  # what TensorRT for RTX builds for where there is no GPU to ask


@dataclass(frozen=True, slots=True)
class Target:
    """What it is built for. architectures: e.g. (90,)."""

    gpu: str
    architectures: tuple[int, ...]
    here: bool


def find(library: Library, asked: Sequence[int] | None, precision: str) -> Target:
    """The GPU that is here, or, for TensorRT for RTX, the architectures asked for. Raises RuntimeError."""
    target = _machine(library, asked, precision)
    if precision == "fp8" and min(target.architectures) < FP8_FROM:
        raise RuntimeError(
            f"fp8 needs compute capability {FP8_FROM / 10}, which {target.gpu} has not. Use int8 (or --arch 89 120)."
        )
    return target


def _machine(library: Library, asked: Sequence[int] | None, precision: str) -> Target:
    if asked and library.runtime == "tensorrt_rtx":
        return Target("-".join(f"sm{a}" for a in asked), tuple(asked), here=False)
    try:
        device = cuda.first_device()
    except EngineUnavailable as error:
        if library.runtime == "tensorrt":
            raise RuntimeError(f"TensorRT builds on the GPU it builds for: {error} tensorrt_rtx needs none.") from None
        able = tuple(a for a in RTX_ARCHITECTURES if precision != "fp8" or a >= FP8_FROM)
        return Target("-".join(f"sm{a}" for a in able), able, here=False)
    return Target(device.name, (device.architecture,), here=True)
