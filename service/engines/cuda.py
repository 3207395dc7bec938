"""The few CUDA calls that an engine needs, by cuda-python; each failure as an error of ours. No PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.errors import DeviceLost, EngineError, EngineOutOfMemory, EngineUnavailable

# After these the context of the process is lost: every later call fails as well (CUDA runtime API, cudaError_t).
_STICKY: Final = frozenset(
    {
        "cudaErrorECCUncorrectable",
        "cudaErrorIllegalAddress",
        "cudaErrorLaunchTimeout",
        "cudaErrorAssert",
        "cudaErrorHardwareStackError",
        "cudaErrorIllegalInstruction",
        "cudaErrorMisalignedAddress",
        "cudaErrorInvalidAddressSpace",
        "cudaErrorInvalidPc",
        "cudaErrorLaunchFailure",
        "cudaErrorTensorMemoryLeak",
        "cudaErrorContained",
        "cudaErrorNvlinkUncorrectable",
        "cudaErrorExternalDevice",
        "cudaErrorMpsClientTerminated",
        "cudaErrorDevicesUnavailable",
        "cudaErrorContextIsDestroyed",
        "cudaErrorUnknown",
    }
)


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU. architecture: 90 for compute capability 9.0."""

    index: int
    name: str
    architecture: int

    @property
    def compute_capability(self) -> str:
        """E.g. "9.0"."""
        return f"{self.architecture // 10}.{self.architecture % 10}"


_DRIVER = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/dev/dxg"))  # the last is WSL's


def driver_is_here() -> bool:
    """Whether missing packages are worth a word: without a driver they would only mislead."""
    return any(path.exists() for path in _DRIVER)


def load() -> Any:
    """The module cuda.bindings.runtime. Raises EngineUnavailable when it is not installed."""
    try:
        from cuda.bindings import runtime  # noqa: PLC0415 - the service must load, and say what is missing, without it
    except ImportError as error:
        raise EngineUnavailable(
            f"cuda-python is not installed ({error}). Install it with: pip install -e '.[gpu]'"
        ) from error
    return runtime


def check(runtime: Any, result: tuple[Any, ...], doing: str) -> Any:
    """What a call returned beside its error code: nothing, one value, or a tuple.

    Raises EngineOutOfMemory, DeviceLost for errors that only a new process ends, or EngineError.
    """
    error, *values = result
    if error == runtime.cudaError_t.cudaSuccess:
        return values[0] if len(values) == 1 else tuple(values)
    message = f"{doing}: {error.name}"
    if error == runtime.cudaError_t.cudaErrorMemoryAllocation:
        raise EngineOutOfMemory(message)
    raise (DeviceLost if error.name in _STICKY else EngineError)(message)


def devices(runtime: Any) -> list[Device]:
    """All GPUs that this process may use, at least one. Raises EngineUnavailable, saying why there is none."""
    error, count = runtime.cudaGetDeviceCount()
    if error == runtime.cudaError_t.cudaErrorInsufficientDriver:
        raise EngineUnavailable("NVIDIA's driver is missing, or older than this CUDA: see what nvidia-smi says.")
    if error != runtime.cudaError_t.cudaSuccess or not count:
        raise EngineUnavailable(f"there is no NVIDIA GPU ({error.name}).")
    found = []
    for index in range(count):
        properties = check(runtime, runtime.cudaGetDeviceProperties(index), f"asking for GPU {index}")
        name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
        found.append(Device(index, name.rstrip("\0"), properties.major * 10 + properties.minor))
    return found


def first_device() -> Device:
    """The first GPU; CUDA_VISIBLE_DEVICES chooses another. Raises EngineUnavailable."""
    return devices(load())[0]
