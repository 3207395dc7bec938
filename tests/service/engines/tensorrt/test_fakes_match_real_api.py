"""The fakes have only functions that the real libraries have, with the same arguments."""

import inspect
import re
from typing import Any

import pytest

from service.engines import cuda
from tests.service.engines.tensorrt import fake_cuda_and_tensorrt


def methods(fake: type) -> list[str]:
    return [name for name, value in vars(fake).items() if inspect.isfunction(value) and not name.startswith("_")]


def arguments(function: Any) -> int:
    return len([name for name in inspect.signature(function).parameters if name != "self"])


def test_the_fake_cuda_matches_the_real_one() -> None:
    real = pytest.importorskip("cuda.bindings.runtime")
    for name in methods(fake_cuda_and_tensorrt.FakeCuda):
        if name.startswith("cuda"):
            assert arguments(getattr(real, name)) == arguments(getattr(fake_cuda_and_tensorrt.FakeCuda, name)), name
    for name in ("cudaStreamNonBlocking", "cudaHostAllocDefault", "cudaEventBlockingSync", "cudaEventDisableTiming"):
        assert getattr(real, name) == getattr(fake_cuda_and_tensorrt.FakeCuda, name)
    for ours, theirs in (
        (fake_cuda_and_tensorrt.Error, real.cudaError_t),
        (fake_cuda_and_tensorrt.CaptureMode, real.cudaStreamCaptureMode),
        (fake_cuda_and_tensorrt.MemcpyKind, real.cudaMemcpyKind),
    ):
        assert {m.name: m.value for m in ours}.items() <= {m.name: int(m) for m in theirs}.items()
    assert {"name", "major", "minor"} <= set(dir(real.cudaDeviceProp))
    assert {m.name for m in real.cudaError_t} >= cuda._STICKY


@pytest.mark.parametrize(
    ("fake", "classes"),
    [
        (fake_cuda_and_tensorrt.FakeContext, ("IExecutionContext",)),
        (fake_cuda_and_tensorrt.FakeTensorRT, ("Runtime", "ICudaEngine")),
        (fake_cuda_and_tensorrt.FakeTensorRTForRTX, ("ICudaEngine",)),
        (fake_cuda_and_tensorrt.FakeRuntimeConfig, ("IRuntimeConfig",)),
    ],
)
def test_the_fake_tensorrt_matches_the_real_one(fake: type, classes: tuple[str, ...]) -> None:
    real = pytest.importorskip("tensorrt_rtx_bindings")
    for name in methods(fake):
        if name == "Runtime":
            continue
        owners = [owner for owner in (getattr(real, c) for c in classes) if hasattr(owner, name)]
        signatures = "".join(getattr(owner, name).__doc__ for owner in owners)
        for argument in inspect.signature(getattr(fake, name)).parameters:
            assert argument == "self" or re.search(rf"[ (]{argument}: ", signatures), (name, argument)
    for name in ("ExecutionContextAllocationStrategy", "DynamicShapesKernelSpecializationStrategy"):
        kinds = getattr(fake_cuda_and_tensorrt.FakeTensorRTForRTX, name)
        assert {kind.name for kind in kinds} <= set(getattr(real, name).__members__)
    assert hasattr(real.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
    assert {"INTERNAL_ERROR", "ERROR", "WARNING"} <= set(dir(real.ILogger))
