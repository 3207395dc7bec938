"""ONNX Runtime: the engine that runs everywhere. The one file that imports onnxruntime."""

import hashlib
from pathlib import Path
from typing import Any, Final

from service.contracts import Inference, UInt8Array
from service.engines.onnx_outputs import keep_outputs, output_names
from service.errors import EngineError, EngineOutOfMemory, EngineUnavailable, ManifestError

ROLE: Final = "onnx"
CLASS_MAP: Final = "class_map"
CONFIDENCE: Final = "confidence"
_OUT_OF_MEMORY: Final = ("failed to allocate memory", "out of memory", "bad_alloc")


class OnnxRuntimeEngine:
    """One ONNX file: uint8 (N, H, W, 3) RGB in, uint8 (N, H, W) class_map and perhaps confidence out.

    One session computes the class map alone. Another with the confidence too is opened when that is first asked
    for: weights are held twice only where they are used twice.
    max_batch is 1 on the CPU: one picture keeps all cores busy, so a batch would only hold finished answers back.
    """

    max_batch = 1

    def __init__(self, model: Path, *, provider: str = "CPUExecutionProvider", intra_op_threads: int = 0) -> None:
        """Load `model` on `provider`; 0 threads leaves their number to the runtime.

        Raises EngineUnavailable without onnxruntime or the provider, ManifestError when the graph does not fit.
        """
        self._ort = ort = _import_onnxruntime()
        if provider not in ort.get_available_providers():
            raise EngineUnavailable(f"this onnxruntime has no {provider}; it has {ort.get_available_providers()}.")
        self.name = f"onnxruntime-{provider.removesuffix('ExecutionProvider').lower()}"
        self._model, self._provider, self._threads = model, provider, intra_op_threads
        try:
            data = model.read_bytes()
            self._digest = hashlib.sha256(data).digest()
            self.has_confidence = CONFIDENCE in output_names(data)
            session = self._open(data, {CLASS_MAP})
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise ManifestError(f"onnxruntime {ort.__version__} can't load {model}: {error}") from error
        self._input = _input_name(session, model)
        self._sessions: dict[bool, Any] = {False: session}  # by whether they compute the confidence

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        """Segment N pictures; see contracts.Engine."""
        if not self._sessions:
            raise EngineError(f"{self.name} is closed.")
        names = [CLASS_MAP, CONFIDENCE] if with_confidence else [CLASS_MAP]
        try:
            return Inference(*self._session(with_confidence).run(names, {self._input: batch}))
        except Exception as error:
            message = str(error)
            kind = EngineOutOfMemory if any(s in message.lower() for s in _OUT_OF_MEMORY) else EngineError
            raise kind(f"{self.name} failed on a batch of {batch.shape}: {message}") from error

    def close(self) -> None:
        """Release the sessions."""
        self._sessions = {}

    def _session(self, with_confidence: bool) -> Any:
        if with_confidence not in self._sessions:
            data = self._model.read_bytes()
            if hashlib.sha256(data).digest() != self._digest:
                raise EngineError(f"{self._model} has changed since it was loaded. Restart the server.")
            self._sessions[with_confidence] = self._open(data, {CLASS_MAP, CONFIDENCE})
        return self._sessions[with_confidence]

    def _open(self, data: bytes, outputs: set[str]) -> Any:
        options = _options(self._ort, self._threads)
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(self._model.parent)
        )
        return self._ort.InferenceSession(keep_outputs(data, outputs), options, providers=[self._provider])


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


def _input_name(session: Any, model: Path) -> str:
    """Name of the input, once the types of it and of the class map are known to fit."""
    ins, outs = session.get_inputs(), session.get_outputs()
    found = [(t.type, len(t.shape)) for t in (*ins, *outs)]
    if len(ins) != 1 or found != [("tensor(uint8)", 4), ("tensor(uint8)", 3)] or ins[0].shape[3] != 3:
        told = ", ".join(f"{t.name} {t.type} {t.shape}" for t in (*ins, *outs))
        raise ManifestError(
            f"{model} has {told}; expected one input tensor(uint8) [N, H, W, 3] and an output {CLASS_MAP} "
            "tensor(uint8) [N, H, W]. Make it with `alignseg export`."
        )
    return str(ins[0].name)
