"""ONNX Runtime on a GPU: where it places operators, and its errors. tests/gpu runs it on a GPU."""

from typing import Any

import pytest

from service.engines.onnxruntime.cuda_engine import OnnxCudaEngine, _require_on_gpu
from service.errors import DeviceLost, EngineError, EngineOutOfMemory, EngineUnavailable


class Session:
    """The part of a session that says where nodes are computed."""

    def __init__(self, providers: list[str], on_cpu: tuple[str, ...]) -> None:
        self.providers, self.on_cpu, self.ep_name = providers, on_cpu, "CPUExecutionProvider"

    def get_providers(self) -> list[str]:
        return self.providers

    def get_provider_graph_assignment_info(self) -> list["Session"]:
        return [self]

    def get_nodes(self) -> list[Any]:
        return [type("Node", (), {"op_type": op_type}) for op_type in self.on_cpu]


def test_no_feature_map_is_computed_on_the_cpu() -> None:
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    _require_on_gpu(Session(both, ("Shape", "Concat", "Range")), "1.32")
    with pytest.raises(EngineUnavailable, match="computes Conv, GridSample on the CPU, expected the GPU"):
        _require_on_gpu(Session(both, ("GridSample", "Shape", "Conv")), "1.32")
    with pytest.raises(EngineUnavailable, match="could not load its CUDA provider"):
        _require_on_gpu(Session(["CPUExecutionProvider"], ()), "1.32")


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("CUDA failure 700: an illegal memory access was encountered", DeviceLost),
        ("CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED", EngineError),
        ("CUDA failure 701: too many resources requested for launch", EngineError),
        ("Failed to allocate memory for requested buffer of size 1", EngineOutOfMemory),
        ("CUDA failure 2: out of memory", EngineOutOfMemory),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", EngineOutOfMemory),
    ],
)
def test_messages_of_onnx_runtime_become_the_services_errors(message: str, kind: type[EngineError]) -> None:
    assert OnnxCudaEngine._error_class(OnnxCudaEngine.__new__(OnnxCudaEngine), message) is kind
