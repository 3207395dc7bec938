"""The CUDA runtime by cuda-python, without PyTorch: devices, and error codes as exceptions of service.errors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.errors import DeviceLost, EngineError, EngineOutOfMemory, EngineUnavailable

# After these the process's CUDA context is lost: every later call fails as well (CUDA runtime API, cudaError_t).
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


_DRIVER_FILES = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/dev/dxg"))  # the last is of WSL


def has_driver() -> bool:
    """Whether NVIDIA's driver is installed. Without it, a message about missing CUDA packages would mislead."""
    return any(path.exists() for path in _DRIVER_FILES)


def load() -> Any:
    """The module cuda.bindings.runtime. Raises EngineUnavailable when it is not installed."""
    try:
        from cuda.bindings import runtime  # noqa: PLC0415 - the service must start without it, and say what is missing
    except ImportError as error:
        if not has_driver():  # installing packages alone would not help
            raise EngineUnavailable(
                "this machine has no NVIDIA GPU, or its driver is not installed. Check it with nvidia-smi, or use "
                "--engine auto. A machine with a GPU also needs: pip install -e '.[gpu]'"
            ) from error
        raise EngineUnavailable(
            f"cuda-python is not installed ({error}). Install it with: pip install -e '.[gpu]'"
        ) from error
    return runtime


def check(runtime: Any, result: tuple[Any, ...], action: str) -> Any:
    """The values that a call returned after its error code: one value, or a tuple, possibly empty.

    result: as returned by the call. action: what it was to do, for the message.
    Raises EngineOutOfMemory, DeviceLost for errors that only a new process recovers from, or EngineError.
    """
    error, *values = result
    if error == runtime.cudaError_t.cudaSuccess:
        return values[0] if len(values) == 1 else tuple(values)
    message = f"{action} failed: {error.name}"
    if error == runtime.cudaError_t.cudaErrorMemoryAllocation:
        raise EngineOutOfMemory(message)
    raise (DeviceLost if error.name in _STICKY else EngineError)(message)


def devices(runtime: Any) -> list[Device]:
    """The GPUs that this process may use. Raises EngineUnavailable, with the reason, when there is none."""
    error, count = runtime.cudaGetDeviceCount()
    if error == runtime.cudaError_t.cudaErrorInsufficientDriver:
        raise EngineUnavailable("NVIDIA's driver is missing, or too old for this CUDA. Check it with nvidia-smi.")
    if error != runtime.cudaError_t.cudaSuccess or not count:
        raise EngineUnavailable(f"CUDA finds no NVIDIA GPU ({error.name}).")
    gpus = []
    for index in range(count):
        properties = check(runtime, runtime.cudaGetDeviceProperties(index), f"reading the properties of GPU {index}")
        name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
        gpus.append(Device(index, name.rstrip("\0"), properties.major * 10 + properties.minor))
    return gpus


def first_device() -> Device:
    """The first GPU that CUDA_VISIBLE_DEVICES allows. Raises EngineUnavailable."""
    return devices(load())[0]
