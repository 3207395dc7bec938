"""OpenVINO: the quicker engine on x86 processors. This file and openvino_ops.py alone import openvino."""

from pathlib import Path
from typing import Any, Final

import numpy as np

from service.contracts import Inference, UInt8Array
from service.engines import openvino_ops
from service.engines.confidence import confidence
from service.engines.onnx_runtime import CLASS_MAP, LOGITS
from service.errors import EngineError, EngineOutOfMemory, EngineUnavailable, ManifestError

_OUT_OF_MEMORY: Final = ("bad_alloc", "out of memory", "failed to allocate")


class OpenVinoEngine:
    """The model folder's one ONNX file, compiled for the CPU in float32; see contracts.Engine.

    max_batch is 1 for the reason it is 1 in ONNX Runtime's engine: one picture keeps all cores busy.
    """

    name = "openvino-cpu"
    max_batch = 1

    def __init__(self, model: Path, *, threads: int = 0) -> None:
        """Load `model`; 0 threads leaves their number to the runtime.

        Raises EngineUnavailable without openvino, ManifestError when the graph does not fit.
        """
        openvino = _import_openvino()
        core = openvino.Core()
        core.add_extension(openvino_ops.extensions())
        # float32 is asked for: on processors that have bfloat16 it would be taken unasked, and masks would change.
        how = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        try:
            compiled = core.compile_model(core.read_model(model), "CPU", how)
            names = [output.get_any_name() for output in compiled.outputs]
        except RuntimeError as error:
            raise ManifestError(f"OpenVINO {openvino.__version__} can't load {model}: {error}") from error
        if CLASS_MAP not in names or len(compiled.inputs) != 1:
            raise ManifestError(
                f"{model} gives {names}; expected one input and an output {CLASS_MAP}. Make it with `alignseg export`."
            )
        self.has_confidence = LOGITS in names
        self._request: Any = compiled.create_infer_request()

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        """Segment N pictures; see contracts.Engine."""
        if self._request is None:
            raise EngineError(f"{self.name} is closed.")
        if with_confidence and not self.has_confidence:
            raise EngineError(f"the model gives no {LOGITS} to tell a confidence from. Make it with `alignseg export`.")
        try:
            # Not shared: the request's output memory is written anew by the next picture.
            answer = self._request.infer([batch], share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            message = str(error)
            kind = EngineOutOfMemory if any(s in message.lower() for s in _OUT_OF_MEMORY) else EngineError
            raise kind(f"{self.name} failed on a batch of {batch.shape}: {message}") from error
        size = batch.shape[1], batch.shape[2]
        return Inference(
            np.ascontiguousarray(answer[CLASS_MAP]), confidence(answer[LOGITS], size) if with_confidence else None
        )

    def close(self) -> None:
        """Release the compiled model."""
        self._request = None


def _import_openvino() -> Any:
    try:
        import openvino  # noqa: PLC0415 - the service must load, and say what is missing, without it
    except ImportError as error:
        raise EngineUnavailable(
            f"openvino is not installed ({error}). Install it with: pip install -e '.[openvino]'"
        ) from error
    return openvino
