"""Short functions for writing OpenVINO graphs: constants, and shapes that are known only when an image comes."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def opset() -> Any:
    """OpenVINO's operations."""
    import openvino.opset15 as ops  # noqa: PLC0415 - optional

    return ops


def int64(value: Any) -> Any:
    """An int64 constant, the type of shapes and axes."""
    return opset().constant(np.array(value, dtype=np.int64))


def int32(value: Any) -> Any:
    """An int32 constant, the type of indices."""
    return opset().constant(np.array(value, dtype=np.int32))


def float32(value: Any) -> Any:
    """A float32 constant."""
    return opset().constant(np.array(value, dtype=np.float32))


def concat(parts: Sequence[Any]) -> Any:
    """The parts one after the other, along the first axis."""
    return opset().concat(list(parts), 0)


def shape_of_axes(tensor: Any, *axes: int) -> Any:
    """The tensor's extents along these axes: (len(axes),) int64."""
    ops = opset()
    return ops.gather(ops.shape_of(tensor), int64(axes), int64(0))


def extent(tensor: Any, axis: int) -> Any:
    """The tensor's extent along one axis: an int32 scalar."""
    ops = opset()
    return ops.gather(ops.shape_of(tensor, "i32"), int64(axis), int64(0))


def arange(count: Any) -> Any:
    """0, 1, .. count - 1: (count,) int32. count: an int32 scalar."""
    return opset().range(int32(0), count, int32(1), "i32")


def is_constant(tensor: Any) -> bool:
    """Whether it is a constant, or the cast of one that the file stores as float16."""
    node = tensor.get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def constant_values(constant: Any) -> Any:
    """A constant's values as float32, also where the file stores them as float16 followed by a cast."""
    node = constant.get_node()
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    return node.get_data().astype(np.float32)
