"""Words for writing OpenVINO graphs: constants, and sizes that are known only when pictures come."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def opset() -> Any:
    """OpenVINO's operations."""
    import openvino.opset15 as ops  # noqa: PLC0415 - optional

    return ops


def int64(value: Any) -> Any:
    """A constant, as shapes and axes are made of."""
    return opset().constant(np.array(value, dtype=np.int64))


def int32(value: Any) -> Any:
    """A constant, as indices are made of."""
    return opset().constant(np.array(value, dtype=np.int32))


def float32(value: Any) -> Any:
    """A constant."""
    return opset().constant(np.array(value, dtype=np.float32))


def joined(parts: Sequence[Any]) -> Any:
    """One list of several, along the first axis."""
    return opset().concat(list(parts), 0)


def sizes(tensor: Any, *axes: int) -> Any:
    """(axes,) int64."""
    ops = opset()
    return ops.gather(ops.shape_of(tensor), int64(axes), int64(0))


def size(tensor: Any, axis: int) -> Any:
    """A scalar, int32."""
    ops = opset()
    return ops.gather(ops.shape_of(tensor, "i32"), int64(axis), int64(0))


def counted(count: Any) -> Any:
    """0, 1 .. count - 1, int32; count: a scalar, int32."""
    return opset().range(int32(0), count, int32(1), "i32")


def values(constant: Any) -> Any:
    """A constant's values, float32, also where the file stores them as float16 behind a cast."""
    node = constant.get_node()
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    return node.get_data().astype(np.float32)
