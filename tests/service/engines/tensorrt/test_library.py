"""GPUs and TensorRT packages: what is found, and the errors when they are missing."""

import sys
from types import ModuleType

import pytest

from service.engines import cuda
from service.engines.cuda import Device
from service.engines.tensorrt import library
from service.errors import EngineUnavailable
from service.model_folder.engine_plan import Machine
from tests.service.engines.tensorrt.fake_cuda_and_tensorrt import Error, FakeCuda, Properties
from tests.service.engines.tensorrt.plans import H200


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr(cuda, "load", lambda: fake)
    return fake


def test_devices_in_cudas_order_or_the_reason_why_there_are_none(
    fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cuda.devices = (Properties("NVIDIA L4", 8, 9), Properties("NVIDIA H200", 9, 0))
    assert [d.compute_capability for d in cuda.devices(fake_cuda)] == ["8.9", "9.0"]
    assert cuda.first_device() == Device(0, "NVIDIA L4", 89)
    fake_cuda.devices = ()
    with pytest.raises(EngineUnavailable, match=r"CUDA finds no NVIDIA GPU \(cudaErrorNoDevice\)"):
        cuda.first_device()
    monkeypatch.setattr(fake_cuda, "cudaGetDeviceCount", lambda: (Error.cudaErrorInsufficientDriver, None))
    with pytest.raises(EngineUnavailable, match="nvidia-smi"):
        cuda.first_device()


def test_without_the_libraries_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    with pytest.raises(EngineUnavailable, match="pip install"):
        library.installed()
    with pytest.raises(EngineUnavailable, match=r"-e '.\[gpu\]'"):
        cuda.load()
    module = ModuleType("tensorrt_rtx")
    module.__version__ = "1.7"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    assert library.machines(H200) == [Machine("NVIDIA H200", "9.0", "tensorrt_rtx", "1.7")]
    with pytest.raises(EngineUnavailable, match=r"^tensorrt is not installed"):
        library.installed("tensorrt")
