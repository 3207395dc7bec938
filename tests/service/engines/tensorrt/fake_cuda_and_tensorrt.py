"""Fakes of the parts of cuda.bindings.runtime and TensorRT that engines/tensorrt calls. GPU memory is host memory.

The network of a fake plan: the class of a pixel is its red value modulo 4, unless a test sets another `classify`; 4
logits at a quarter of the size.
"""

import ctypes
import enum
from collections.abc import Callable
from typing import Any

import numpy as np

CLASSES = 4


class Error(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInvalidValue = 1
    cudaErrorIllegalAddress = 700
    cudaErrorNoDevice = 100
    cudaErrorInsufficientDriver = 35


class CaptureMode(enum.Enum):
    cudaStreamCaptureModeThreadLocal = 1


class MemcpyKind(enum.Enum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class Properties:
    def __init__(self, name: str, major: int, minor: int) -> None:
        self.name, self.major, self.minor = name.encode(), major, minor


class FakeCuda:
    """Runs queued work at once, or keeps it for the graph while capturing.

    fails: error codes that calls return, by name, once each. limit: bytes that can be allocated.
    """

    cudaError_t, cudaStreamCaptureMode, cudaMemcpyKind = Error, CaptureMode, MemcpyKind
    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0
    cudaEventBlockingSync, cudaEventDisableTiming = 1, 2

    def __init__(
        self, devices: tuple[Properties, ...] = (Properties("NVIDIA H200", 9, 0),), limit: int = 2**30
    ) -> None:
        self.devices, self.limit = devices, limit
        self.fails: dict[str, Error] = {}
        self.calls: list[str] = []
        self.memory: dict[int, Any] = {}
        self.capturing: list[Any] | None = None

    def _result(self, name: str, *values: Any) -> tuple[Any, ...]:
        self.calls.append(name)
        error = self.fails.pop(name, Error.cudaSuccess)
        return (error, *values)

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return (Error.cudaSuccess, len(self.devices)) if self.devices else (Error.cudaErrorNoDevice, 0)

    def cudaGetDeviceProperties(self, index: int) -> tuple[Any, ...]:
        return Error.cudaSuccess, self.devices[index]

    def cudaSetDevice(self, index: int) -> tuple[Any, ...]:
        return self._result("cudaSetDevice")

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        return self._result("cudaStreamCreateWithFlags", 7)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        return self._result("cudaStreamDestroy")

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        self.event_flags = flags
        return self._result("cudaEventCreateWithFlags", 9)

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Any, ...]:
        return self._result("cudaEventRecord")

    def cudaEventSynchronize(self, event: int) -> tuple[Any, ...]:
        return self._result("cudaEventSynchronize")

    def cudaEventDestroy(self, event: int) -> tuple[Any, ...]:
        return self._result("cudaEventDestroy")

    def cudaGetLastError(self) -> tuple[Any, ...]:
        return self._result("cudaGetLastError")

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._allocate("cudaMalloc", size)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        return self._allocate("cudaHostAlloc", size)

    def _allocate(self, name: str, size: int) -> tuple[Any, ...]:
        used = sum(len(block) for block in self.memory.values())
        if used + size > self.limit:
            return Error.cudaErrorMemoryAllocation, 0
        block = (ctypes.c_uint8 * size)()
        self.memory[ctypes.addressof(block)] = block
        return self._result(name, ctypes.addressof(block))

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        del self.memory[address]
        return self._result("cudaFree")

    cudaFreeHost = cudaFree

    def queue(self, work: Any) -> None:
        if self.capturing is None:
            work()
        else:
            self.capturing.append(work)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: Any, stream: int) -> tuple[Any, ...]:
        self.queue(lambda: ctypes.memmove(target, source, size))
        return self._result("cudaMemcpyAsync")

    def cudaMemsetAsync(self, devPtr: int, value: int, count: int, stream: int) -> tuple[Any, ...]:
        self.queue(lambda: ctypes.memset(devPtr, value, count))
        return self._result("cudaMemsetAsync")

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        used = sum(len(block) for block in self.memory.values())
        return Error.cudaSuccess, self.limit - used, self.limit

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> tuple[Any, ...]:
        self.capturing = []
        return self._result("cudaStreamBeginCapture")

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        graph, self.capturing = self.capturing, None
        return self._result("cudaStreamEndCapture", graph)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        return self._result("cudaGraphInstantiate", list(graph))

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any, ...]:
        return self._result("cudaGraphDestroy")

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, graph: Any, stream: int) -> tuple[Any, ...]:
        for work in graph:
            work()
        return self._result("cudaGraphLaunch")


class FakeContext:
    def __init__(self, trt: "FakeTensorRT") -> None:
        self.trt = trt
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.scratch: tuple[int, int] = (0, 0)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        return profile_index < self.trt.profiles

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return name == "pictures"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        count, height, width, _ = self.shape
        return count, CLASSES, -(-height // 4), -(-width // 4)

    def set_device_memory(self, memory: int, size: int) -> None:
        self.scratch = (memory, size)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return name in {"pictures", "class_map", "logits"} and not self.trt.refuses_addresses

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert isinstance(stream_handle, int) and self.scratch[0] in self.trt.cuda.memory
        if self.trt.refuse_capture and self.trt.cuda.capturing is not None:
            return False
        self.trt.cuda.queue(self._compute)
        return not self.trt.fails

    def _compute(self) -> None:
        count, height, width, _ = self.shape
        pixels = count * height * width
        pictures = np.frombuffer((ctypes.c_uint8 * (pixels * 3)).from_address(self.addresses["pictures"]), np.uint8)
        ids = self.trt.classify(pictures.reshape(pixels, 3)).astype(np.uint8)
        ctypes.memmove(self.addresses["class_map"], ids.tobytes(), pixels)
        logits = np.zeros(self.get_tensor_shape("logits"), np.float32)
        logits[:, 1] = 100.0
        ctypes.memmove(self.addresses["logits"], logits.tobytes(), logits.nbytes)


class FakeTensorRT:
    """The module, which is also its own runtime and engine."""

    __version__ = "11.4.0"

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

        def __init__(self) -> None:
            pass

    class ExecutionContextAllocationStrategy(enum.Enum):
        USER_MANAGED = 2

    def __init__(self, cuda: FakeCuda, profiles: int = 2) -> None:
        self.cuda, self.profiles = cuda, profiles
        self.fails = self.refuse_capture = self.refuses_addresses = False
        self.no_memory = False
        self.contexts = 0
        self.classify: Callable[[Any], Any] = lambda pixels: pixels[:, 0] % CLASSES  # (P, 3) uint8 -> (P,)

    def Runtime(self, logger: Any) -> "FakeTensorRT":
        self.logger = logger
        return self

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "FakeTensorRT | None":
        if serialized_engine != b"plan":
            self.logger.log(self.ILogger.ERROR, "magic tag does not match")
            return None
        return self

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return 1000 * (profile_index + 1)

    def create_execution_context(self, strategy: Any) -> FakeContext | None:
        assert strategy is self.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.no_memory:
            self.logger.log(self.ILogger.ERROR, "Error Code 2: OutOfMemory (Requested size was 1 bytes.)")
            return None
        self.contexts += 1
        return FakeContext(self)


class FakeTensorRTForRTX(FakeTensorRT):
    """Contexts are created from a runtime configuration."""

    __version__ = "1.7.1"

    class DynamicShapesKernelSpecializationStrategy(enum.Enum):
        LAZY, EAGER, NONE = range(3)

    def create_runtime_config(self) -> "FakeRuntimeConfig":
        return FakeRuntimeConfig(self)

    def create_execution_context(self, runtime_config: "FakeRuntimeConfig") -> FakeContext | None:  # type: ignore[override]
        assert (
            runtime_config.dynamic_shapes_kernel_specialization_strategy
            is self.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        return super().create_execution_context(runtime_config.allocation)


class FakeRuntimeConfig:
    def __init__(self, trt: FakeTensorRTForRTX) -> None:
        self.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.LAZY
        self.allocation: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.allocation = strategy
