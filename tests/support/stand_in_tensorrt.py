"""A TensorRT whose contexts queue real work on the GPU, so that the engine runs on the real CUDA without TensorRT.

The class of pixel i of a batch is byte i of its images; the logits are zero. Both are work on the stream, so they are
captured, replayed, overlapped and fail as a network's kernels do.
"""

import math
from typing import Any

import numpy as np

from service.types import UInt8Array
from tests.service.engines.tensorrt.fake_cuda_and_tensorrt import FakeContext, FakeTensorRT


class StandInTensorRT(FakeTensorRT):
    """runtime: cuda.bindings.runtime, or its fake. repeats: how often the work is queued, so that lanes overlap."""

    def __init__(self, runtime: Any, repeats: int = 1) -> None:
        super().__init__(runtime)
        self.repeats = repeats

    def create_execution_context(self, strategy: Any) -> "StandInContext":
        assert strategy is self.ExecutionContextAllocationStrategy.USER_MANAGED
        return StandInContext(self)


class StandInContext(FakeContext):
    """Queues on the stream that it is given."""

    trt: StandInTensorRT

    def execute_async_v3(self, stream_handle: int) -> bool:
        cuda, pixels = self.trt.cuda, math.prod(self.shape[:3])
        for _ in range(self.trt.repeats):
            results = (
                cuda.cudaMemcpyAsync(
                    self.addresses["class_map"], self.addresses["pictures"], pixels,
                    cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice, stream_handle,
                ),
                cuda.cudaMemsetAsync(
                    self.addresses["logits"], 0, 4 * math.prod(self.get_tensor_shape("logits")), stream_handle
                ),
            )  # fmt: skip
            if any(error != cuda.cudaError_t.cudaSuccess for error, *_ in results):
                return False
        return True


def expected(batch: UInt8Array) -> UInt8Array:
    """The class map of a batch (N, H, W, 3)."""
    return batch.reshape(-1)[: math.prod(batch.shape[:3])].reshape(batch.shape[:3])


def images(count: int, height: int = 8, width: int = 12, seed: int = 0) -> UInt8Array:
    """Random images of a bucket of tests/service/engines/tensorrt/plans.py."""
    return np.random.default_rng((seed, count)).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
