"""ONNX Runtime on a GPU: runs the portable ONNX file where there is no TensorRT engine."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from service.engines.onnxruntime.engine import OnnxRuntimeEngine
from service.errors import DeviceLost, EngineError, EngineOutOfMemory, EngineUnavailable
from service.types import UInt8Array

PROVIDER: Final = "CUDAExecutionProvider"
# Operators on images and feature maps. On the CPU each would cost two copies while the GPU waits. ONNX Runtime places
# the remaining operators, arithmetic on shapes, on the CPU on purpose.
_MAP_OPERATORS: Final = frozenset(
    {
        "Conv",
        "FusedConv",
        "NhwcConv",
        "BatchNormalization",
        "LeakyRelu",
        "Relu",
        "MaxPool",
        "Resize",
        "GridSample",
        "MatMul",
        "Gemm",
        "ArgMax",
    }
)
_STICKY: Final = re.compile(
    r"illegal memory access|unspecified launch failure|device-side assert|misaligned address|illegal instruction|"
    r"cuda (?:failure|error) (?:46|214|220|226|700|702|709|71[04-9]|721|810|911|999)\b",  # as in engines/cuda.py
    re.IGNORECASE,
)


class OnnxCudaEngine(OnnxRuntimeEngine):
    """OnnxRuntimeEngine on a GPU, where batches increase the throughput."""

    max_batch = 8

    def __init__(self, model: Path, *, device: int = 0) -> None:
        """Load `model` on GPU `device`.

        Raises EngineUnavailable without the provider or its libraries, or when a feature map would be computed on the
        CPU.
        """
        # Each bucket and batch size is a new shape: an exhaustive search at each would delay the first requests.
        options = {"device_id": str(device), "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
        super().__init__(model, provider=PROVIDER, provider_options=options)
        self._device = device
        try:
            _require_on_gpu(self._session, self._ort.__version__)
        except EngineUnavailable:
            self.close()
            raise

    def _before_session(self) -> None:
        self._ort.preload_dlls()  # CUDA and cuDNN from their wheels, unless installed system-wide

    def _run(self, names: Sequence[str], batch: UInt8Array) -> list[Any]:
        """Run with an IO binding: one copy in, one copy out for each requested output, none for the others."""
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input, self._ort.OrtValue.ortvalue_from_numpy(batch, "cuda", self._device))
        for name in names:
            binding.bind_output(name, "cuda", self._device)
        self._session.run_with_iobinding(binding)
        outputs: list[Any] = binding.copy_outputs_to_cpu()
        return outputs

    def _error_class(self, message: str) -> type[EngineError]:
        if _STICKY.search(message):
            return DeviceLost
        return EngineOutOfMemory if "ALLOC" in message else super()._error_class(message)  # a status of cuBLAS or cuDNN


def _require_on_gpu(session: Any, version: str) -> None:
    """Raises EngineUnavailable when ONNX Runtime uses the CPU for everything or for an operator on feature maps."""
    if PROVIDER not in session.get_providers():  # ONNX Runtime only warns when it can't load CUDA's libraries
        raise EngineUnavailable(
            f"onnxruntime {version} could not load its CUDA provider, which needs CUDA and cuDNN. Install them with: "
            "pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    on_cpu = sorted(
        {
            node.op_type
            for part in session.get_provider_graph_assignment_info()
            if part.ep_name == "CPUExecutionProvider"
            for node in part.get_nodes()
            if node.op_type in _MAP_OPERATORS
        }
    )
    if on_cpu:
        raise EngineUnavailable(
            f"onnxruntime {version} computes {', '.join(on_cpu)} on the CPU, expected the GPU. Upgrade onnxruntime-gpu."
        )
