"""ONNX Runtime: the engine that runs everywhere. The one file that imports onnxruntime."""

from pathlib import Path
from typing import Any, Final

import numpy as np

from service.contracts import UInt8Array
from service.errors import EngineError, EngineOutOfMemory, EngineUnavailable, ManifestError

ROLE: Final = "onnx"
_OUT_OF_MEMORY: Final = ("failed to allocate memory", "out of memory", "bad_alloc")


class OnnxRuntimeEngine:
    """A session over one ONNX file: uint8 (N, H, W, 3) RGB in, uint8 (N, H, W) class ids out.

    max_batch is 1 on the CPU: one picture keeps all cores busy, so a batch would only hold finished answers back.
    """

    max_batch = 1

    def __init__(self, model: Path, *, provider: str = "CPUExecutionProvider", intra_op_threads: int = 0) -> None:
        """Load `model` on `provider`; 0 threads leaves their number to the runtime.

        Raises EngineUnavailable without onnxruntime or the provider, ManifestError when the graph does not fit.
        """
        ort = _import_onnxruntime()
        if provider not in ort.get_available_providers():
            raise EngineUnavailable(f"this onnxruntime has no {provider}; it has {ort.get_available_providers()}.")
        self.name = f"onnxruntime-{provider.removesuffix('ExecutionProvider').lower()}"
        try:
            self._session: Any = ort.InferenceSession(model, _options(ort, intra_op_threads), providers=[provider])
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise ManifestError(f"onnxruntime {ort.__version__} can't load {model}: {error}") from error
        self._input, self._output = _signature(self._session, model)

    def infer(self, batch: UInt8Array) -> UInt8Array:
        """Segment N pictures; see contracts.Engine."""
        if self._session is None:
            raise EngineError(f"{self.name} is closed.")
        try:
            (ids,) = self._session.run([self._output], {self._input: batch})
        except Exception as error:
            message = str(error)
            kind = EngineOutOfMemory if any(s in message.lower() for s in _OUT_OF_MEMORY) else EngineError
            raise kind(f"{self.name} failed on a batch of {batch.shape}: {message}") from error
        return np.asarray(ids, dtype=np.uint8)

    def close(self) -> None:
        """Release the session."""
        self._session = None


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 - the service must load, and say what is missing, without it
    except ImportError as error:
        raise EngineUnavailable(
            f"onnxruntime is not installed ({error}). Install it with: pip install 'alignseg-serve[cpu]'"
        ) from error
    return onnxruntime


def _options(ort: Any, intra_op_threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.log_severity_level = 3  # errors; warnings about the graph are the exporter's business
    # Spinning threads would burn the cores that decode and encode need: off is 25 % more pictures a second.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _signature(session: Any, model: Path) -> tuple[str, str]:
    """Names of the input and the output, once their types are known to fit."""
    ins, outs = session.get_inputs(), session.get_outputs()
    found = [(t.type, len(t.shape)) for t in (*ins, *outs)]
    if len(ins) != 1 or found != [("tensor(uint8)", 4), ("tensor(uint8)", 3)] or ins[0].shape[3] != 3:
        told = ", ".join(f"{t.name} {t.type} {t.shape}" for t in (*ins, *outs))
        raise ManifestError(
            f"{model} has {told}; expected one input tensor(uint8) [N, H, W, 3] and one output tensor(uint8) "
            "[N, H, W]. Make it with `alignseg export`."
        )
    return ins[0].name, outs[0].name
