"""Bilinear upsampling of the logits and argmax over the classes, row by row, 16 pixels an instruction.

Bilinear upsampling is a product along each axis, up(l) = R l C. Along the rows it is a matrix product, computed while
there are few rows. Down the columns, a row of the result is a weighted sum of two rows, each (classes, W) in one piece:
EmbeddingBagPackedSum. The classes of a row then lie one after the other, and the argmax compares 16 pixels in an
instruction. In the graph as read, Interpolate leaves the classes of each pixel beside each other: the argmax goes
through them one by one, or all upsampled logits are transposed first.

For K classes, (h, w) to (H, W): K W (h w + 2 H) multiplications instead of 4 K H W, eight times as many (63 instead of
8 million for 11 classes at 369x481), but in a matrix product, which processors compute fastest. Bytes written and read:
8 K W (h + H), where transposed logits take 16 K H W. The sums differ only by rounding.
"""

from typing import Any

from service.engines.openvino.graph_builder import arange, concat, extent, float32, int32, int64, opset, shape_of_axes


def rowwise_argmax(model: Any) -> None:
    """Rewrite an argmax over bilinearly upsampled logits, in place. model: openvino.Model as read, of any size."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "TopK" and _is_argmax(node) and _is_upsampled(node.input_value(0)):
            node.output(1).replace(_argmax(node).output(0))
    model.validate_nodes_and_infer_types()


def _is_argmax(node: Any) -> bool:
    attributes, count = node.get_attributes(), node.input_value(1).get_node()
    one = count.get_type_name() == "Constant" and count.get_data().item() == 1
    values_unused = not node.output(0).get_target_inputs()
    return bool(one and attributes["axis"] == 1 and attributes["mode"] == "max" and values_unused)


def _is_upsampled(logits: Any) -> bool:
    node = logits.get_node()
    if node.get_type_name() != "Interpolate" or logits.get_partial_shape().rank.get_length() != 4:
        return False
    attributes = node.get_attributes()
    linear = attributes["mode"] in ("linear", "linear_onnx")
    return linear and attributes["coordinate_transformation_mode"] == "align_corners"


def _argmax(node: Any) -> Any:
    """The class of each pixel, (N, 1, H, W), of the node's element type."""
    ops, upsampled = opset(), node.input_value(0)
    logits = upsampled.get_node().input_value(0)
    widened = ops.matmul(
        ops.transpose(logits, int64([0, 2, 1, 3])), _row_weights(extent(logits, 3), extent(upsampled, 3)), False, False
    )  # (N, h, classes, W)
    row = ops.multiply(shape_of_axes(logits, 1), shape_of_axes(upsampled, 3))
    table = ops.reshape(widened, concat([int64([-1]), row]), False)
    rows = ops.embedding_bag_packed_sum(table, *_column_taps(logits, upsampled))  # (N * H, classes * W)
    by_class = ops.reshape(rows, concat([int64([-1]), shape_of_axes(upsampled, 1, 3)]), False)
    class_ids = ops.topk(by_class, int64(1), 1, "max", "none", node.get_output_element_type(1)).output(1)
    shape = concat([shape_of_axes(logits, 0), int64([1, -1]), shape_of_axes(upsampled, 3)])
    return ops.reshape(class_ids, shape, False)


def _row_weights(width: Any, upsampled_width: Any) -> Any:
    """(width, upsampled_width): the weight of each pixel of a row in each pixel of the upsampled row."""
    ops = opset()
    pixels = ops.convert(ops.unsqueeze(arange(width), int64(1)), "f32")
    distance = ops.abs(ops.subtract(_positions(width, upsampled_width), pixels))
    return ops.maximum(ops.subtract(float32(1), distance), float32(0))


def _column_taps(logits: Any, upsampled: Any) -> tuple[Any, Any]:
    """The two rows of the table (N * h) that each upsampled row lies between, and their weights: (N * H, 2) each."""
    ops, height, upsampled_height = opset(), extent(logits, 2), extent(upsampled, 2)
    position = ops.unsqueeze(_positions(height, upsampled_height), int64(1))
    below = ops.floor(position)
    weight = ops.abs(ops.subtract(float32([1, 0]), ops.subtract(position, below)))
    row = ops.minimum(ops.add(ops.convert(below, "i32"), int32([0, 1])), ops.subtract(height, int32(1)))  # (H, 2)
    first = ops.reshape(ops.multiply(arange(extent(logits, 0)), height), int64([-1, 1, 1]), False)
    rows = ops.add(first, row)  # (N, H, 2)
    weights = ops.broadcast(weight, ops.shape_of(rows))
    return tuple(ops.reshape(each, int64([-1, 2]), False) for each in (rows, weights))


def _positions(length: Any, upsampled_length: Any) -> Any:
    """Where each upsampled pixel lies on the axis before upsampling, corners aligned: (upsampled_length,) float32."""
    ops = opset()
    gaps = ops.convert(ops.maximum(ops.subtract(upsampled_length, int32(1)), int32(1)), "f32")
    step = ops.divide(ops.convert(ops.subtract(length, int32(1)), "f32"), gaps)
    return ops.multiply(ops.convert(arange(upsampled_length), "f32"), step)
