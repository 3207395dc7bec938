"""OpenVINO: the quickest engine on x86 processors. This file and its openvino_*.py alone import it."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, ParamSpec, TypeVar

import numpy as np

from service.engines.confidence import confidence
from service.engines.openvino import custom_ops, quantization, rewrite_argmax, rewrite_input_layout, rewrite_offset_conv
from service.engines.openvino.compile_cache import Cache
from service.errors import EngineError, EngineOutOfMemory, EngineUnavailable, ManifestError
from service.types import CLASS_MAP, LOGITS, Inference, UInt8Array

Precision = Literal["float32", "bf16", "int8"]
NAMES: Final[dict[Precision, str]] = {"float32": "openvino-cpu", "bf16": "openvino-bf16", "int8": "openvino-int8"}
_OUT_OF_MEMORY: Final = ("bad_alloc", "out of memory", "failed to allocate")
_SIZES_KEPT: Final = 16  # compiled for; a served model needs one a bucket
_SIZES_AT_WORK: Final = 2  # as landscapes and portraits in turn
Shape = tuple[int, ...]
P = ParamSpec("P")
T = TypeVar("T")


def _apart(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it in a thread that ends at once.

    OpenVINO gives each thread that compiles a signal stack, and takes it, or another one's, away when a model goes.
    In the main thread the next signal, Ctrl-C say, then ends the process by SIGSEGV (seen with 2026.4).
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work, *args, **kwargs).result()


class OpenVinoEngine:
    """The model folder's one ONNX file, compiled for the CPU; see contracts.Engine.

    It is compiled for each size, the known ones at once, others when they are first asked for: half a second each.
    max_batch is 1 for the reason it is 1 in ONNX Runtime's engine: one picture keeps all cores busy.
    """

    max_batch = 1

    def __init__(
        self,
        model: Path,
        *,
        precision: Precision = "float32",
        ranges: quantization.Ranges | None = None,
        threads: int = 0,
        sizes: Sequence[tuple[int, int]] = (),
        cache: Path | None = None,
    ) -> None:
        """Load `model`; 0 threads leaves their number to the runtime.

        precision: of convolutions and what lies between them; where to sample is exact in each. ranges: for "int8",
        in which the rest is bf16 as well. sizes: (H, W) of the pictures that will come. cache: folder to keep what
        was compiled in.
        Raises EngineUnavailable without openvino or a processor that computes in this precision, ManifestError when
        the graph does not fit.
        """
        openvino = _import_openvino()
        self.name = NAMES[precision]
        self._path, self._ranges = model, ranges if precision == "int8" else None
        self._core = openvino.Core()
        self._core.add_extension(custom_ops.extensions())
        if precision != "float32" and not computes_bf16(self._core):
            raise EngineUnavailable("this processor does not compute in bfloat16 (AVX512_BF16 or AMX).")
        self._how = {
            "PERFORMANCE_HINT": "LATENCY",
            # float32 must be asked for: processors that have bfloat16 would take that unasked, and masks would change.
            "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16",
            "INFERENCE_NUM_THREADS": threads,
            # Bound to cores, threads would wait for the codecs' there, and those of two engines for each other.
            "ENABLE_CPU_PINNING": False,
        }
        self._cache = _apart(Cache, self._core, cache, model, self._how, self._ranges)
        self._model: Any = None  # read when something must be compiled
        self._requests: OrderedDict[Shape, Any] | None = OrderedDict()
        outputs = [self._request((1, *size, 3)).get_compiled_model().outputs for size in sizes]
        names = {name for output in (outputs[0] if outputs else self._read().outputs) for name in output.names}
        self.has_confidence = LOGITS in names
        self._model = None  # it has told its names, and is large

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        """Segment N pictures; see contracts.Engine."""
        if self._requests is None:
            raise EngineError(f"{self.name} is closed.")
        if with_confidence and not self.has_confidence:
            raise EngineError(f"the model gives no {LOGITS} to tell a confidence from. Make it with `alignseg export`.")
        try:
            # Not shared: the request's output memory is written anew by the next picture.
            answer = self._request(batch.shape).infer([batch], share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            message = str(error)
            kind = EngineOutOfMemory if any(s in message.lower() for s in _OUT_OF_MEMORY) else EngineError
            raise kind(f"{self.name} failed on a batch of {batch.shape}: {message}") from error
        size = batch.shape[1], batch.shape[2]
        return Inference(
            np.ascontiguousarray(answer[CLASS_MAP]), confidence(answer[LOGITS], size) if with_confidence else None
        )

    def close(self) -> None:
        """Release the compiled models."""
        self._model = self._requests = None

    def _request(self, shape: Shape) -> Any:
        """What infers this shape. OpenVINO computes a fixed one without reorders that a dynamic one needs."""
        assert self._requests is not None  # noqa: S101
        if shape not in self._requests:
            self._requests[shape] = _apart(self._make_request, shape)
            if len(self._requests) > _SIZES_KEPT:
                self._requests.popitem(last=False)
        self._requests.move_to_end(shape)  # the latest used last
        for idle in list(self._requests.values())[-_SIZES_AT_WORK - 1 : -_SIZES_AT_WORK]:
            idle.get_compiled_model().release_memory()  # of feature maps, 23 MB at 360x480; it comes back when needed
        return self._requests[shape]

    def _make_request(self, shape: Shape) -> Any:
        compiled = self._cache.load(shape)
        if compiled is None:
            compiled = self._compiled(shape)
            self._cache.keep(shape, compiled)
        return compiled.create_infer_request()

    def _compiled(self, shape: Shape) -> Any:
        self._model = self._model or self._read()
        fixed = self._model.clone()
        fixed.reshape(list(shape))
        return self._core.compile_model(fixed, "CPU", self._how)

    def _read(self) -> Any:
        """The graph, checked, and with int8 marked where it is to be."""
        try:
            model = self._core.read_model(self._path)
            names = [output.get_any_name() for output in model.outputs]
        except RuntimeError as error:
            raise ManifestError(f"OpenVINO can't load {self._path}: {error}") from error
        if CLASS_MAP not in names or len(model.inputs) != 1:
            raise ManifestError(
                f"{self._path} gives {names}; expected one input and an output {CLASS_MAP}. "
                "Make it with `alignseg export`."
            )
        rewrite_input_layout.in_order(model)
        rewrite_offset_conv.widen(model)
        rewrite_argmax.by_rows(model)
        if self._ranges is not None:
            quantization.quantise(model, self._ranges)
        return model


def computes_bf16(core: Any = None) -> bool:
    """Whether this processor multiplies bfloat16; all that do multiply int8 as well (VNNI)."""
    core = core or _import_openvino().Core()
    return "BF16" in _apart(core.get_property, "CPU", "OPTIMIZATION_CAPABILITIES")


def _import_openvino() -> Any:
    try:
        import openvino  # noqa: PLC0415 - the service must load, and say what is missing, without it
    except ImportError as error:
        raise EngineUnavailable(
            f"openvino is not installed ({error}). Install it with: pip install -e '.[cpu]'"
        ) from error
    return openvino
