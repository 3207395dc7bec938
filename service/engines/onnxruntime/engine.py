"""ONNX Runtime on the CPU: the engine that runs everywhere, and the reference for the others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from service.engines.confidence import confidence
from service.errors import EngineError, EngineOutOfMemory, EngineUnavailable, ManifestError
from service.types import CLASS_MAP, LOGITS, Inference, UInt8Array

ROLE: Final = "onnx"
_OUT_OF_MEMORY: Final = ("failed to allocate memory", "out of memory", "bad_alloc")


class OnnxRuntimeEngine:
    """Runs an ONNX file; see service.types.Engine.

    The graph takes (N, H, W, 3) uint8 RGB and returns class_map, (N, H, W) uint8, and optionally the logits.
    max_batch is 1 on the CPU: one image keeps all cores busy, so in a batch finished images would wait for others.
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
        """Load `model`.

        provider, provider_options: ONNX Runtime's execution provider. intra_op_threads: of one inference; 0 leaves the
        number to the runtime.
        Raises EngineUnavailable without onnxruntime or the provider, ManifestError when the file does not load, or is
        not a graph that `alignseg export` writes.
        """
        self._ort = ort = _import_onnxruntime()
        self._before_session()
        if provider not in ort.get_available_providers():
            raise EngineUnavailable(
                f"onnxruntime {ort.__version__} has no {provider}, only {', '.join(ort.get_available_providers())}"
            )
        self.name = f"onnxruntime-{provider.removesuffix('ExecutionProvider').lower()}"
        try:
            providers = [(provider, dict(provider_options or {}))]
            session = ort.InferenceSession(model, _options(ort, intra_op_threads), providers=providers)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise ManifestError(f"onnxruntime {ort.__version__} can't load {model}: {error}") from error
        self._input = _input_name(session, model)
        self.has_confidence = any(output.name == LOGITS for output in session.get_outputs())
        self._session: Any = session

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        """Segment N images; see service.types.Engine."""
        if self._session is None:
            raise EngineError(f"{self.name} is closed.")
        if with_confidence and not self.has_confidence:
            raise EngineError(
                f"the model has no {LOGITS} output, which confidence needs. Export it with `alignseg export`."
            )
        names = [CLASS_MAP, LOGITS] if with_confidence else [CLASS_MAP]
        try:
            ids, *logits = self._run(names, batch)
        except Exception as error:
            message = str(error)
            raise self._error_class(message)(f"{self.name} failed on a batch of {batch.shape}: {message}") from error
        return Inference(ids, confidence(logits[0], (batch.shape[1], batch.shape[2])) if logits else None)

    def _before_session(self) -> None:
        """Called before the session is created, for subclasses."""

    def _run(self, names: Sequence[str], batch: UInt8Array) -> list[Any]:
        """Run the session. Returns the outputs of these names."""
        outputs: list[Any] = self._session.run(names, {self._input: batch})
        return outputs

    def _error_class(self, message: str) -> type[EngineError]:
        """The error to raise for a message of the runtime."""
        return EngineOutOfMemory if any(text in message.lower() for text in _OUT_OF_MEMORY) else EngineError

    def close(self) -> None:
        """Release the session."""
        self._session = None


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 - the service must start without it, and say what is missing
    except ImportError as error:
        raise EngineUnavailable(
            f"onnxruntime is not installed ({error}). Install it with: pip install -e '.[cpu]'"
        ) from error
    return onnxruntime


def _options(ort: Any, intra_op_threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.log_severity_level = 3  # errors only: warnings about the graph concern the export
    # Spinning threads would occupy the cores that decode and encode: without them 25 % more images a second.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _input_name(session: Any, model: Path) -> str:
    """Name of the input. Raises ManifestError when the types of input and class map are not those of an export."""
    ins, outs = session.get_inputs(), session.get_outputs()
    images = [(t.type, len(t.shape), t.shape[-1]) for t in ins]
    class_maps = [(t.type, len(t.shape)) for t in outs if t.name == CLASS_MAP]
    if images != [("tensor(uint8)", 4, 3)] or class_maps != [("tensor(uint8)", 3)]:
        signature = ", ".join(f"{t.name} {t.type} {t.shape}" for t in (*ins, *outs))
        raise ManifestError(
            f"{model} has {signature}; expected one input tensor(uint8) [N, H, W, 3] and an output {CLASS_MAP} "
            "tensor(uint8) [N, H, W]. Export it with `alignseg export`."
        )
    return str(ins[0].name)
