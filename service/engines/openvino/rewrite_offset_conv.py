"""AlignFA's last convolution, whose outputs are the offsets (x, y) of each group, for a block of 2x4 pixels at once.

A 3x3 kernel with two outputs fills two of the 16 lanes of a processor's multiply instruction. A block of 2x4 pixels has
16 outputs and reads 4x6 inputs: the same kernel K at eight positions, zeros around it. With a stride of 2x4

    out(2i + y, 4j + x) = sum over u, v of K(u - y, v - x) in(2i + u - 1, 4j + v - 1),  K = 0 outside of 0 .. 2,

is one convolution, whose channels are then laid out as pixels; pixels beyond an odd edge are cut off. Only zeros are
added to the sums, so the offsets are the same bit by bit.

For C channels and a group, a pixel costs 48 C multiplications instead of 18 C, but 3 C instructions of 16 lanes instead
of 9 C. As many bytes are read; the offsets, 2 of C channels, are written three times instead of once.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.engines.openvino.graph_builder import concat, constant_values, int64, opset, shape_of_axes

_ROWS: Final = 2
_COLUMNS: Final = 4


def block_offset_convs(model: Any) -> None:
    """Rewrite these convolutions, in place. model: openvino.Model as read, of any input size."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "GroupConvolution" and _is_offset_conv(node):
            node.output(0).replace(_blocked(node))
    model.validate_nodes_and_infer_types()


def _is_offset_conv(node: Any) -> bool:
    """Whether it is 3x3 with two outputs a group, padding 1, stride 1 and dilation 1."""
    attributes, kernels = node.get_attributes(), node.input_value(1).get_partial_shape()
    plain = all(list(attributes[key]) == [1, 1] for key in ("strides", "dilations", "pads_begin", "pads_end"))
    return plain and kernels.is_static and [kernels.to_shape()[axis] for axis in (1, 3, 4)] == [2, 3, 3]


def _blocked(node: Any) -> Any:
    """The node's output, (N, 2 * groups, H, W), computed in blocks."""
    ops, source, kernels = opset(), node.input_value(0), node.input_value(1)
    groups, block = kernels.get_shape()[0], [_ROWS, _COLUMNS]
    block_kernels = ops.constant(at_each_position(constant_values(kernels).reshape(kernels.get_shape())))
    # Padded at the end by as many zeros as let the last block begin at any pixel.
    blocks = ops.group_convolution(source, block_kernels, block, pads_begin=[1, 1], pads_end=block, dilations=[1, 1])
    last = ops.transpose(blocks, int64([0, 2, 3, 1]))
    positions = ops.reshape(last, int64([0, 0, 0, groups, *block, 2]), True)
    pixels = ops.transpose(positions, int64([0, 3, 6, 1, 4, 2, 5]))  # (N, groups, 2, blocks down, 2, blocks across, 4)
    width = ops.multiply(shape_of_axes(blocks, 3), int64([_COLUMNS]))
    whole = ops.reshape(pixels, concat([int64([0, 2 * groups, -1]), width]), True)
    return ops.slice(whole, int64([0, 0]), shape_of_axes(source, 2, 3), int64([1, 1]), int64([2, 3])).output(0)


def at_each_position(kernels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The kernels at each pixel of a block. kernels: (groups, outputs, C, 3, 3).

    Returns (groups, 8 * outputs, C, 4, 6), outputs innermost.
    """
    groups, outputs, channels = kernels.shape[:3]
    blocked = np.zeros((groups, _ROWS, _COLUMNS, outputs, channels, _ROWS + 2, _COLUMNS + 2), np.float32)
    for y in range(_ROWS):
        for x in range(_COLUMNS):
            blocked[:, y, x, :, :, y : y + 3, x : x + 3] = kernels
    return blocked.reshape(groups, _ROWS * _COLUMNS * outputs, *blocked.shape[4:])
