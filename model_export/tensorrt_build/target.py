"""Which GPU an engine is built for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from model_export.tensorrt_build.library import Library
from service.engines import cuda
from service.errors import EngineUnavailable

FP8_FROM: Final = 89  # Ada and Hopper
RTX_ARCHITECTURES: Final = (80, 86, 89, 120)  # built for by TensorRT for RTX when there is no GPU


@dataclass(frozen=True, slots=True)
class Target:
    """gpu: its name, or e.g. "sm89-sm120". architectures: e.g. (90,). is_local: whether this machine has that GPU."""

    gpu: str
    architectures: tuple[int, ...]
    is_local: bool

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        """E.g. ("9.0",)."""
        return tuple(f"{architecture // 10}.{architecture % 10}" for architecture in self.architectures)


def find(library: Library, architectures: Sequence[int] | None, precision: str) -> Target:
    """The GPU of this machine, or, for TensorRT for RTX, the given architectures.

    architectures: compute capabilities such as 89; None: those of this machine's GPU, or all of RTX_ARCHITECTURES.
    Raises RuntimeError without a GPU that TensorRT needs, or when the target does not support `precision`.
    """
    target = _target(library, architectures, precision)
    if precision == "fp8" and min(target.architectures) < FP8_FROM:
        raise RuntimeError(
            f"fp8 needs compute capability {FP8_FROM / 10} or higher, {target.gpu} has a lower one. "
            "Use --precision int8, or newer architectures: --arch 89 120."
        )
    return target


def _target(library: Library, architectures: Sequence[int] | None, precision: str) -> Target:
    if architectures and library.runtime == "tensorrt_rtx":
        return _without_gpu(architectures)
    try:
        device = cuda.first_device()
    except EngineUnavailable as error:
        if library.runtime == "tensorrt":
            raise RuntimeError(
                f"TensorRT needs the GPU that it builds for, but {str(error).removesuffix('.')}. "
                "TensorRT for RTX needs none: --runtime tensorrt_rtx."
            ) from None
        return _without_gpu([a for a in RTX_ARCHITECTURES if precision != "fp8" or a >= FP8_FROM])
    return Target(device.name, (device.architecture,), is_local=True)


def _without_gpu(architectures: Sequence[int]) -> Target:
    return Target("-".join(f"sm{a}" for a in architectures), tuple(architectures), is_local=False)
