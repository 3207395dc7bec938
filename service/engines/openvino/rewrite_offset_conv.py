"""AlignFA's last convolution, to the offsets (x, y) of each group, for a block of 2x4 pixels at once.

A 3x3 kernel with two outputs fills two of the sixteen lanes that a processor multiplies in. A block of 2x4 pixels
has sixteen outputs, and reads 4x6 inputs: the same kernel K at eight places, zeros around it. With a stride of 2x4

    out(2i + y, 4j + x) = sum over u, v of K(u - y, v - x) in(2i + u - 1, 4j + v - 1),  K = 0 outside of 0 .. 2,

is one convolution, whose channels are then laid out as pixels; what lies beyond an odd edge is cut off. Only zeros are
added to the sums, so offsets are the same bit by bit.

For C channels and a group, a pixel costs 48 C multiplications instead of 18 C, but 3 C instructions of sixteen lanes
instead of 9 C. As many bytes are read; the offsets, 2 of C channels, are written three times instead of once.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.engines.openvino.graph_builder import int64, joined, opset, sizes, values

_ROWS: Final = 2
_COLUMNS: Final = 4


def widen(model: Any) -> None:
    """Rewrite such convolutions in place. model: openvino.Model, as read; of any sizes."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "GroupConvolution" and _is_to_offsets(node):
            node.output(0).replace(_in_blocks(node))
    model.validate_nodes_and_infer_types()


def _is_to_offsets(node: Any) -> bool:
    """Whether it is 3x3 with a border of one, two outputs a group, and nothing else special."""
    how, kernels = node.get_attributes(), node.input_value(1).get_partial_shape()
    plain = all(list(how[key]) == [1, 1] for key in ("strides", "dilations", "pads_begin", "pads_end"))
    return plain and kernels.is_static and [kernels.to_shape()[axis] for axis in (1, 3, 4)] == [2, 3, 3]


def _in_blocks(node: Any) -> Any:
    """What the node gives, (N, 2 * groups, H, W)."""
    ops, source, kernels = opset(), node.input_value(0), node.input_value(1)
    groups, block = kernels.get_shape()[0], [_ROWS, _COLUMNS]
    wide = ops.constant(at_each_place(values(kernels).reshape(kernels.get_shape())))
    # Behind the picture as many zeros as let the last block begin on any pixel.
    blocks = ops.group_convolution(source, wide, block, pads_begin=[1, 1], pads_end=block, dilations=[1, 1])
    places = ops.reshape(ops.transpose(blocks, int64([0, 2, 3, 1])), int64([0, 0, 0, groups, *block, 2]), True)
    pixels = ops.transpose(places, int64([0, 3, 6, 1, 4, 2, 5]))  # (N, groups, 2, blocks down, 2, blocks across, 4)
    width = ops.multiply(sizes(blocks, 3), int64([_COLUMNS]))
    whole = ops.reshape(pixels, joined([int64([0, 2 * groups, -1]), width]), True)
    return ops.slice(whole, int64([0, 0]), sizes(source, 2, 3), int64([1, 1]), int64([2, 3])).output(0)


def at_each_place(kernels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """kernels: (groups, outputs, C, 3, 3). Returns (groups, 8 * outputs, C, 4, 6), outputs innermost."""
    groups, outputs, channels = kernels.shape[:3]
    wide = np.zeros((groups, _ROWS, _COLUMNS, outputs, channels, _ROWS + 2, _COLUMNS + 2), np.float32)
    for y in range(_ROWS):
        for x in range(_COLUMNS):
            wide[:, y, x, :, :, y : y + 3, x : x + 3] = kernels
    return wide.reshape(groups, _ROWS * _COLUMNS * outputs, *wide.shape[4:])
