"""The fastest engine on x86 processors. Only this package imports OpenVINO."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, ParamSpec, TypeVar

import numpy as np

from service.engines.confidence import confidence
from service.engines.openvino import custom_ops, processor, quantization
from service.engines.openvino.compile_cache import CompileCache
from service.engines.openvino.rewrite_argmax import rowwise_argmax
from service.engines.openvino.rewrite_input_layout import keep_channels_last
from service.engines.openvino.rewrite_offset_conv import block_offset_convs
from service.errors import EngineError, EngineOutOfMemory, EngineUnavailable, ManifestError
from service.types import CLASS_MAP, LOGITS, Inference, UInt8Array

Precision = Literal["float32", "bf16", "int8"]
NAMES: Final[dict[Precision, str]] = {"float32": "openvino-cpu", "bf16": "openvino-bf16", "int8": "openvino-int8"}
_OUT_OF_MEMORY: Final = ("bad_alloc", "out of memory", "failed to allocate")
_SHAPES_KEPT: Final = 16  # compiled shapes; a served model needs one a bucket
_SHAPES_WITH_MEMORY: Final = 2  # compiled shapes that keep their feature maps: landscape and portrait images in turn
Shape = tuple[int, ...]
P = ParamSpec("P")
T = TypeVar("T")


def in_short_lived_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a thread that ends afterwards.

    OpenVINO gives each thread that compiles a signal stack, and frees it, or that of another thread, with the model.
    In the main thread the next signal, such as Ctrl-C, would then end the process by SIGSEGV (observed with 2026.4).
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *args, **kwargs).result()


class OpenVinoEngine:
    """The model folder's ONNX file, compiled for the CPU; see service.types.Engine.

    The model is compiled for each input shape: for the known shapes at once, for others at their first batch, which
    takes half a second. max_batch is 1, as in ONNX Runtime's engine: one image keeps all cores busy.
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
        """Load `model`.

        precision: of the convolutions and what lies between them; sampling positions are exact in each. "int8" needs
            `ranges`, and computes what it does not quantise in bf16 if the processor has it, else in float32.
        threads: of one inference; 0 leaves the number to the runtime.
        sizes: (H, W) of the images to expect, compiled now.
        cache: folder for compiled models; None keeps none.
        Raises EngineUnavailable without openvino or without a processor that computes in this precision, ManifestError
        when the graph is not one that `alignseg export` writes.
        """
        openvino = _import_openvino()
        self.name = NAMES[precision]
        self._path, self._ranges = model, ranges if precision == "int8" else None
        self._core = openvino.Core()
        self._core.add_extension(custom_ops.extensions())
        features = in_short_lived_thread(processor.features, self._core)
        _require(features, precision)
        self._sums_of_16_bits = not features.vnni
        self._properties = {
            "PERFORMANCE_HINT": "LATENCY",
            # Processors with bfloat16 would use it unless set to float32, and class maps would change.
            "INFERENCE_PRECISION_HINT": "bf16" if precision != "float32" and features.bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": threads,
            # Pinned to cores, threads would wait there for the codecs, and those of two engines for each other.
            "ENABLE_CPU_PINNING": False,
        }
        self._cache = in_short_lived_thread(
            CompileCache, self._core, cache, model, self._properties, self._ranges, features
        )
        self._model: Any = None  # read when a shape has to be compiled
        self._requests: OrderedDict[Shape, Any] | None = OrderedDict()
        outputs = [self._request((1, *size, 3)).get_compiled_model().outputs for size in sizes]
        names = {name for output in (outputs[0] if outputs else self._read().outputs) for name in output.names}
        self.has_confidence = LOGITS in names
        self._model = None  # large, and not needed while all shapes are known

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        """Segment N images; see service.types.Engine."""
        if self._requests is None:
            raise EngineError(f"{self.name} is closed.")
        if with_confidence and not self.has_confidence:
            raise EngineError(
                f"the model has no {LOGITS} output, which confidence needs. Export it with `alignseg export`."
            )
        try:
            # Outputs are not shared: the next image overwrites the request's output memory.
            outputs = self._request(batch.shape).infer([batch], share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            message = str(error)
            kind = EngineOutOfMemory if any(s in message.lower() for s in _OUT_OF_MEMORY) else EngineError
            raise kind(f"{self.name} failed on a batch of {batch.shape}: {message}") from error
        size = batch.shape[1], batch.shape[2]
        return Inference(
            np.ascontiguousarray(outputs[CLASS_MAP]), confidence(outputs[LOGITS], size) if with_confidence else None
        )

    def close(self) -> None:
        """Release the compiled models."""
        self._model = self._requests = None

    def _request(self, shape: Shape) -> Any:
        """The inference request of this input shape. A fixed shape saves the reorders that a dynamic one needs."""
        assert self._requests is not None  # noqa: S101
        if shape not in self._requests:
            self._requests[shape] = in_short_lived_thread(self._create_request, shape)
            if len(self._requests) > _SHAPES_KEPT:
                self._requests.popitem(last=False)
        self._requests.move_to_end(shape)  # the most recently used last
        for idle in list(self._requests.values())[-_SHAPES_WITH_MEMORY - 1 : -_SHAPES_WITH_MEMORY]:
            idle.get_compiled_model().release_memory()  # feature maps, 23 MB at 360x480; allocated again when needed
        return self._requests[shape]

    def _create_request(self, shape: Shape) -> Any:
        compiled = self._cache.load(shape)
        if compiled is None:
            compiled = self._compile(shape)
            self._cache.store(shape, compiled)
        return compiled.create_infer_request()

    def _compile(self, shape: Shape) -> Any:
        self._model = self._model or self._read()
        fixed = self._model.clone()
        fixed.reshape(list(shape))
        return self._core.compile_model(fixed, "CPU", self._properties)

    def _read(self) -> Any:
        """The graph, checked, rewritten, and for int8 quantised."""
        try:
            model = self._core.read_model(self._path)
            names = [output.get_any_name() for output in model.outputs]
        except RuntimeError as error:
            raise ManifestError(f"OpenVINO can't load {self._path}: {error}") from error
        if CLASS_MAP not in names or len(model.inputs) != 1:
            raise ManifestError(
                f"{self._path} has {len(model.inputs)} inputs and the outputs {names}; expected one input and an "
                f"output {CLASS_MAP}. Export it with `alignseg export`."
            )
        keep_channels_last(model)
        block_offset_convs(model)
        rowwise_argmax(model)
        if self._ranges is not None:
            quantization.quantise(model, self._ranges, sums_of_16_bits=self._sums_of_16_bits)
        return model


def features() -> processor.Features:
    """Of this processor. Raises EngineUnavailable without openvino."""
    return in_short_lived_thread(processor.features, _import_openvino().Core())


def _require(features: processor.Features, precision: Precision) -> None:
    if precision == "bf16" and not features.bfloat16:
        raise EngineUnavailable("this processor does not support bfloat16, which needs AVX512_BF16 or AMX")
    if precision == "int8" and not features.avx2:
        raise EngineUnavailable("this processor does not support AVX2, which int8 needs")


def _import_openvino() -> Any:
    try:
        import openvino  # noqa: PLC0415 - the service must start without it, and say what is missing
    except ImportError as error:
        raise EngineUnavailable(
            f"openvino is not installed ({error}). Install it with: pip install -e '.[cpu]'"
        ) from error
    return openvino
