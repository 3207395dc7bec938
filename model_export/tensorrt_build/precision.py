"""Types written into an ONNX graph as casts: a strongly typed TensorRT network computes in what the graph says."""

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
# These only pass on or scale what they are given, so they stay in the type that their activations come in.
_FOLLOWING: Final = frozenset({"Relu", "LeakyRelu", "Add", "Mul", "Concat", "MaxPool", "Resize"})


class PrecisionError(Exception):
    """A weight does not fit the type asked for."""


def write_precision(model: ModelProto, precision: Precision, in_half: frozenset[str] = frozenset()) -> None:
    """Cast, in place: convolutions and what lies between them to `precision`; all else, and the logits, in float32.

    in_half: further operators that take `precision`, e.g. plugins. Operators without float inputs are left alone.
    Raises PrecisionError when a weight overflows.
    """
    if precision != "fp32":
        _Writer(model, _TYPES[precision], in_half | {"Conv", "QuantizeLinear", "DequantizeLinear"}).write()


class _Writer:
    """One pass over the nodes in order; each value has the type of the node that made it."""

    def __init__(self, model: ModelProto, half: int, in_half: frozenset[str]) -> None:
        self.graph = model.graph
        self.half = half
        self.in_half = in_half
        self.floats = _float_values(model)
        self.weights = {weight.name: weight for weight in self.graph.initializer}
        self.halves: set[str] = set()  # activations made in half
        self.made: set[str] = set()  # casts and half weights that are there already
        self.nodes: list[NodeProto] = []

    def write(self) -> None:
        for node in list(self.graph.node):
            to_half = self._computes_in_half(node)
            convert = self._half if to_half else self._full
            node.input[:] = [convert(name) if name in self.floats else name for name in node.input]
            self.nodes.append(node)
            if to_half:
                self._made_half(node)
        for value in self.graph.output:
            if value.name in self.halves:
                raise AssertionError(f"{value.name} leaves the graph in half; only {LOGITS} is known to")
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        del self.graph.value_info[:]

    def _computes_in_half(self, node: NodeProto) -> bool:
        if node.op_type in self.in_half:
            return True
        return node.op_type in _FOLLOWING and any(name in self.halves for name in node.input)

    def _made_half(self, node: NodeProto) -> None:
        if LOGITS in node.output:  # what argmax and confidence read is float32
            inside = f"{LOGITS}.half"
            node.output[:] = [inside if name == LOGITS else name for name in node.output]
            self._cast(inside, LOGITS, TensorProto.FLOAT)
        self.halves.update(node.output)

    def _half(self, name: str) -> str:
        if name in self.halves:
            return name
        return self._once(f"{name}.half", self._weight if name in self.weights else self._down, name)

    def _full(self, name: str) -> str:
        return self._once(f"{name}.full", self._up, name) if name in self.halves else name

    def _once(self, name: str, make: Callable[[str, str], None], source: str) -> str:
        if name not in self.made:
            make(source, name)
            self.made.add(name)
        return name

    def _down(self, source: str, name: str) -> None:
        self._cast(source, name, self.half)

    def _up(self, source: str, name: str) -> None:
        self._cast(source, name, TensorProto.FLOAT)

    def _cast(self, source: str, name: str, to: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [name], name=f"{name}/Cast", to=to))

    def _weight(self, source: str, name: str) -> None:
        values = numpy_helper.to_array(self.weights[source])
        with np.errstate(over="ignore"):
            stored = values.astype(_STORAGE[self.half])
        if not np.isfinite(stored.astype(np.float32)).all():
            raise PrecisionError(f"{source} holds {np.abs(values).max():.3g}, beyond {stored.dtype}. Use bf16 or fp32.")
        self.graph.initializer.append(numpy_helper.from_array(stored, name))


def _float_values(model: ModelProto) -> set[str]:
    """Names of all float32 values, weights included."""
    graph = shape_inference.infer_shapes(model).graph
    typed = [*graph.value_info, *graph.input, *graph.output]
    values = {value.name for value in typed if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return values | {weight.name for weight in graph.initializer if weight.data_type == TensorProto.FLOAT}
