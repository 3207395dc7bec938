"""AlignFA's last convolution, to two offsets (x, y) a group, computed for a block of pixels at once.

A kernel of 3x3 with two outputs fills two of the sixteen lanes that a processor multiplies in at once. A block of 2x4
pixels reads 4x6 inputs, and has sixteen outputs: the same kernel at eight places, zeros around it. With stride 2x4 that
is one convolution,

    out[2i + y, 4j + x] = sum over u, v of K[u - y, v - x] in[2i + u - 1, 4j + v - 1],  K = 0 outside of 0..2,

whose channels are then laid out as pixels; what lies beyond an odd edge is cut off. Nothing but zeros is added to the
sums. For C channels a pixel costs 24 * C * 16 / 8 = 48 C multiplications a group instead of 18 C, but 3 C
instructions of sixteen lanes instead of 9 C. Bytes: the same are read, and offsets, 2 of C channels, written twice.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.engines.openvino_nodes import int64, joined, opset, sizes, values

_BLOCK: Final = (2, 4)  # rows, columns


def widen(model: Any) -> None:
    """Rewrite such convolutions in place. model: openvino.Model, as read; of any sizes."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "GroupConvolution" and _is_to_offsets(node):
            node.output(0).replace(_in_blocks(node))
    model.validate_nodes_and_infer_types()


def _is_to_offsets(node: Any) -> bool:
    how, ones = node.get_attributes(), [1, 1]
    plain = all(list(how[key]) == ones for key in ("strides", "dilations", "pads_begin", "pads_end"))
    kernel = node.input_value(1).get_partial_shape()
    return plain and kernel.is_static and [kernel.to_shape()[axis] for axis in (1, 3, 4)] == [2, 3, 3]


def _in_blocks(node: Any) -> Any:
    """The same output, (N, 2 * groups, H, W)."""
    ops, source, (rows, columns) = opset(), node.input_value(0), _BLOCK
    kernels = values(node.input_value(1)).reshape(node.input_value(1).get_shape())
    groups = len(kernels)
    # One row of zeros before, as ever. Behind, as many as let the last block begin on any row.
    blocks = ops.group_convolution(source, ops.constant(at_each_place(kernels)), _BLOCK, [1, 1], _BLOCK, [1, 1])
    apart = ops.reshape(ops.transpose(blocks, int64([0, 2, 3, 1])), int64([0, 0, 0, groups, rows, columns, 2]), True)
    pixels = ops.transpose(apart, int64([0, 3, 6, 1, 4, 2, 5]))  # (N, groups, 2, blocks down, rows, across, columns)
    width = ops.multiply(sizes(blocks, 3), int64([columns]))
    whole = ops.reshape(pixels, joined([int64([0, 2 * groups, -1]), width]), True)
    return ops.slice(whole, int64([0, 0]), sizes(source, 2, 3), int64([1, 1]), int64([2, 3])).output(0)


def at_each_place(kernels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """kernels: (groups, 2, C, 3, 3). Returns (groups, rows * columns * 2, C, rows + 2, columns + 2)."""
    groups, outputs, channels = kernels.shape[:3]
    rows, columns = _BLOCK
    wide = np.zeros((groups, rows, columns, outputs, channels, rows + 2, columns + 2), np.float32)
    for y in range(rows):
        for x in range(columns):
            wide[:, y, x, :, :, y : y + 3, x : x + 3] = kernels
    return wide.reshape(groups, -1, *wide.shape[4:])
