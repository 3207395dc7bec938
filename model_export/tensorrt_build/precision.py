"""Writes the precision into an ONNX graph as casts: a strongly typed TensorRT network computes in the graph's types."""

from collections.abc import Callable
from typing import Any, Final, Literal

import ml_dtypes
import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from service.types import LOGITS

Precision = Literal["fp32", "fp16", "bf16"]
_TYPES: Final = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_STORAGE: Final[dict[int, np.dtype[Any]]] = {
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}
_LARGEST: Final[dict[int, float]] = {TensorProto.FLOAT16: 65504.0, TensorProto.BFLOAT16: 3.39e38}
# These copy, scale or add values, so they compute in the type of their inputs.
_TYPE_PRESERVING: Final = frozenset({"Relu", "LeakyRelu", "Clip", "Add", "Mul", "Concat", "MaxPool", "Resize"})


class PrecisionError(Exception):
    """A weight does not fit the storage type."""


def write_precision(model: ModelProto, precision: Precision, in_half: frozenset[str] = frozenset()) -> None:
    """Insert casts, in place: convolutions and what lies between them in `precision`, the rest in float32.

    in_half: further operators that compute in `precision`, e.g. plugins. Operators without float inputs are unchanged.
    Raises PrecisionError when a weight overflows.
    """
    if precision != "fp32":
        _Writer(model, _TYPES[precision], in_half | {"Conv", "QuantizeLinear", "DequantizeLinear"}).write()


class _Writer:
    """One pass over the nodes in order; each value has the type of the node that outputs it."""

    def __init__(self, model: ModelProto, half: int, in_half: frozenset[str]) -> None:
        self.graph = model.graph
        self.half = half
        self.in_half = in_half
        self.floats = _float_values(model)
        self.weights = {weight.name: weight for weight in self.graph.initializer}
        self.halves: set[str] = set()  # activations stored in the half type
        self.converted: set[str] = set()  # casts and half weights already in the graph
        self.nodes: list[NodeProto] = []

    def write(self) -> None:
        for node in list(self.graph.node):
            to_half = self._computes_in_half(node)
            convert = self._as_half if to_half else self._as_float
            node.input[:] = [convert(name) if name in self.floats else name for name in node.input]
            self.nodes.append(node)
            if to_half:
                self._mark_outputs(node)
        for value in self.graph.output:
            if value.name in self.halves:
                raise AssertionError(f"{value.name} is an output in a half type; only {LOGITS} can be cast back")
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        del self.graph.value_info[:]

    def _computes_in_half(self, node: NodeProto) -> bool:
        if node.op_type in self.in_half:
            return True
        return node.op_type in _TYPE_PRESERVING and any(name in self.halves for name in node.input)

    def _mark_outputs(self, node: NodeProto) -> None:
        if LOGITS in node.output:  # argmax and confidence read float32
            inside = f"{LOGITS}.half"
            node.output[:] = [inside if name == LOGITS else name for name in node.output]
            self._cast(inside, LOGITS, TensorProto.FLOAT)
        self.halves.update(node.output)

    def _as_half(self, name: str) -> str:
        if name in self.halves:
            return name
        return self._once(f"{name}.half", self._convert_weight if name in self.weights else self._cast_to_half, name)

    def _as_float(self, name: str) -> str:
        return self._once(f"{name}.full", self._cast_to_float, name) if name in self.halves else name

    def _once(self, name: str, convert: Callable[[str, str], None], source: str) -> str:
        if name not in self.converted:
            convert(source, name)
            self.converted.add(name)
        return name

    def _cast_to_half(self, source: str, name: str) -> None:
        self._cast(source, name, self.half)

    def _cast_to_float(self, source: str, name: str) -> None:
        self._cast(source, name, TensorProto.FLOAT)

    def _cast(self, source: str, name: str, to: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [name], name=f"{name}/Cast", to=to))

    def _convert_weight(self, source: str, name: str) -> None:
        values = numpy_helper.to_array(self.weights[source])
        with np.errstate(over="ignore"):
            stored = values.astype(_STORAGE[self.half])
        if not np.isfinite(stored.astype(np.float32)).all():
            raise PrecisionError(
                f"the weight {source} has values up to {np.abs(values).max():.3g}, expected at most "
                f"{_LARGEST[self.half]:.3g}, the largest {stored.dtype}. "
                "Use --precision bf16 or fp32."
            )
        self.graph.initializer.append(numpy_helper.from_array(stored, name))


def _float_values(model: ModelProto) -> set[str]:
    """Names of all float32 values, weights included."""
    graph = shape_inference.infer_shapes(model).graph
    typed = [*graph.value_info, *graph.input, *graph.output]
    values = {value.name for value in typed if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return values | {weight.name for weight in graph.initializer if weight.data_type == TensorProto.FLOAT}
