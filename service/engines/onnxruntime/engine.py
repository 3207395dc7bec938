"""ONNX Runtime: the engine that runs everywhere. The one file that imports onnxruntime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from service.engines.confidence import confidence
from service.errors import EngineError, EngineOutOfMemory, EngineUnavailable, ManifestError
from service.types import CLASS_MAP, LOGITS, Inference, UInt8Array

ROLE: Final = "onnx"
_OUT_OF_MEMORY: Final = ("failed to allocate memory", "out of memory", "bad_alloc")


class OnnxRuntimeEngine:
    """One ONNX file: uint8 (N, H, W, 3) RGB in, uint8 (N, H, W) class_map and perhaps its logits out.

    max_batch is 1 on the CPU: one picture keeps all cores busy, so a batch would only hold finished answers back.
    """

    max_batch = 1

    def __init__(
        self,
        model: Path,
        *,
        provider: str = "CPUExecutionProvider",
        provider_options: Mapping[str, str] | None = None,
        intra_op_threads: int = 0,
    ) -> None:
        """Load `model` on `provider`; 0 threads leaves their number to the runtime.

        Raises EngineUnavailable without onnxruntime or the provider, ManifestError when the graph does not fit.
        """
        self._ort = ort = _import_onnxruntime()
        self._prepare()
        if provider not in ort.get_available_providers():
            raise EngineUnavailable(f"this onnxruntime has no {provider}; it has {ort.get_available_providers()}.")
        self.name = f"onnxruntime-{provider.removesuffix('ExecutionProvider').lower()}"
        try:
            providers = [(provider, dict(provider_options or {}))]
            session = ort.InferenceSession(model, _options(ort, intra_op_threads), providers=providers)
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise ManifestError(f"onnxruntime {ort.__version__} can't load {model}: {error}") from error
        self._input = _input_name(session, model)
        self.has_confidence = any(output.name == LOGITS for output in session.get_outputs())
        self._session: Any = session

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        """Segment N pictures; see contracts.Engine."""
        if self._session is None:
            raise EngineError(f"{self.name} is closed.")
        if with_confidence and not self.has_confidence:
            raise EngineError(f"the model gives no {LOGITS} to tell a confidence from. Make it with `alignseg export`.")
        names = [CLASS_MAP, LOGITS] if with_confidence else [CLASS_MAP]
        try:
            ids, *logits = self._run(names, batch)
        except Exception as error:
            message = str(error)
            raise self._kind(message)(f"{self.name} failed on a batch of {batch.shape}: {message}") from error
        return Inference(ids, confidence(logits[0], (batch.shape[1], batch.shape[2])) if logits else None)

    def _prepare(self) -> None:
        """What the runtime needs before a session is made."""

    def _run(self, names: Sequence[str], batch: UInt8Array) -> list[Any]:
        """The outputs of these names."""
        outputs: list[Any] = self._session.run(names, {self._input: batch})
        return outputs

    def _kind(self, message: str) -> type[EngineError]:
        """Which of our errors this message of the runtime's is."""
        return EngineOutOfMemory if any(text in message.lower() for text in _OUT_OF_MEMORY) else EngineError

    def close(self) -> None:
        """Release the session."""
        self._session = None


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 - the service must load, and say what is missing, without it
    except ImportError as error:
        raise EngineUnavailable(
            f"onnxruntime is not installed ({error}). Install it with: pip install -e '.[cpu]'"
        ) from error
    return onnxruntime


def _options(ort: Any, intra_op_threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.log_severity_level = 3  # errors; warnings about the graph are the exporter's business
    # Spinning threads would burn the cores that decode and encode need: off is 25 % more pictures a second.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _input_name(session: Any, model: Path) -> str:
    """Name of the input, once the types of it and of the class map are known to fit."""
    ins, outs = session.get_inputs(), session.get_outputs()
    pictures = [(t.type, len(t.shape), t.shape[-1]) for t in ins]
    class_maps = [(t.type, len(t.shape)) for t in outs if t.name == CLASS_MAP]
    if pictures != [("tensor(uint8)", 4, 3)] or class_maps != [("tensor(uint8)", 3)]:
        told = ", ".join(f"{t.name} {t.type} {t.shape}" for t in (*ins, *outs))
        raise ManifestError(
            f"{model} has {told}; expected one input tensor(uint8) [N, H, W, 3] and an output {CLASS_MAP} "
            "tensor(uint8) [N, H, W]. Make it with `alignseg export`."
        )
    return str(ins[0].name)
