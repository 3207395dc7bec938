"""Logits upsampled and compared row by row, sixteen pixels at a time.

Bilinear upsampling is a product along each axis, up(l) = R l C. Along the rows that is a product of matrices, when rows
are few still. Down the columns a row of the result is a weighted sum of two rows, each (classes, W) in one piece: what
EmbeddingBagPackedSum computes. So a row's classes lie one after the other, and the argmax compares sixteen pixels in an
instruction. As the graph is read, Interpolate leaves the classes of each pixel beside each other, and the argmax goes
through them one by one, or all of the upsampled logits are turned before it.

For K classes, (h, w) to (H, W): K W (h w + 2 H) multiplications instead of 4 K H W, eight times as many (63 instead of
8 million for 11 classes at 369x481), but in a product of matrices, what a processor does best. Bytes written and read:
8 K W (h + H), where turned logits take 16 K H W. Sums differ by rounding alone.
"""

from typing import Any

from service.engines.openvino.graph_builder import counted, float32, int32, int64, joined, opset, size, sizes


def by_rows(model: Any) -> None:
    """Rewrite an argmax over bilinearly upsampled classes in place. model: openvino.Model, as read; of any sizes."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "TopK" and _is_argmax(node) and _is_upsampled(node.input_value(0)):
            node.output(1).replace(_argmax(node).output(0))
    model.validate_nodes_and_infer_types()


def _is_argmax(node: Any) -> bool:
    how, count = node.get_attributes(), node.input_value(1).get_node()
    one = count.get_type_name() == "Constant" and count.get_data().item() == 1
    return bool(one and how["axis"] == 1 and how["mode"] == "max" and not node.output(0).get_target_inputs())


def _is_upsampled(logits: Any) -> bool:
    node = logits.get_node()
    if node.get_type_name() != "Interpolate" or logits.get_partial_shape().rank.get_length() != 4:
        return False
    how = node.get_attributes()
    return how["mode"] in ("linear", "linear_onnx") and how["coordinate_transformation_mode"] == "align_corners"


def _argmax(node: Any) -> Any:
    """The class of each pixel, (N, 1, H, W), of the element type that the node has."""
    ops, upsampled = opset(), node.input_value(0)
    logits = upsampled.get_node().input_value(0)
    widened = ops.matmul(
        ops.transpose(logits, int64([0, 2, 1, 3])), _along_row(size(logits, 3), size(upsampled, 3)), False, False
    )  # (N, h, classes, W)
    row = ops.multiply(sizes(logits, 1), sizes(upsampled, 3))
    table = ops.reshape(widened, joined([int64([-1]), row]), False)
    rows = ops.embedding_bag_packed_sum(table, *_down_columns(logits, upsampled))  # (N * H, classes * W)
    compared = ops.reshape(rows, joined([int64([-1]), sizes(upsampled, 1, 3)]), False)
    strongest = ops.topk(compared, int64(1), 1, "max", "none", node.get_output_element_type(1)).output(1)
    return ops.reshape(strongest, joined([sizes(logits, 0), int64([1, -1]), sizes(upsampled, 3)]), False)


def _along_row(narrow: Any, wide: Any) -> Any:
    """(narrow, wide): how much of each pixel of a row goes into each pixel of the upsampled row."""
    ops = opset()
    pixels = ops.convert(ops.unsqueeze(counted(narrow), int64(1)), "f32")
    distance = ops.abs(ops.subtract(_positions(narrow, wide), pixels))
    return ops.maximum(ops.subtract(float32(1), distance), float32(0))


def _down_columns(logits: Any, upsampled: Any) -> tuple[Any, Any]:
    """The two rows of the table (N * h) that each upsampled row lies between, and their weights: (N * H, 2)."""
    ops, low, high = opset(), size(logits, 2), size(upsampled, 2)
    position = ops.unsqueeze(_positions(low, high), int64(1))
    below = ops.floor(position)
    weight = ops.abs(ops.subtract(float32([1, 0]), ops.subtract(position, below)))
    row = ops.minimum(ops.add(ops.convert(below, "i32"), int32([0, 1])), ops.subtract(low, int32(1)))  # (H, 2)
    first = ops.reshape(ops.multiply(counted(size(logits, 0)), low), int64([-1, 1, 1]), False)
    rows = ops.add(first, row)  # (N, H, 2)
    weights = ops.broadcast(weight, ops.shape_of(rows))
    return tuple(ops.reshape(each, int64([-1, 2]), False) for each in (rows, weights))


def _positions(few: Any, many: Any) -> Any:
    """Where each of `many` upsampled pixels lies among `few`, corners on corners. (many,) float32."""
    ops = opset()
    gaps = ops.convert(ops.maximum(ops.subtract(many, int32(1)), int32(1)), "f32")
    step = ops.divide(ops.convert(ops.subtract(few, int32(1)), "f32"), gaps)
    return ops.multiply(ops.convert(counted(many), "f32"), step)
