"""Pixels normalised in the order in which they come, (N, H, W, 3), and transposed as floats instead of before.

(x - mean) / std per channel commutes with a transposition, so every number is the same. OpenVINO computes its first
convolution on pixels whose channels lie beside each other. As the graph is read, the picture is turned to planes, made
float, normalised, and turned back; in this order nothing is turned at all. A row's mean and deviation are those of a
pixel W times over, since OpenVINO computes one by one where only the innermost three numbers differ.

The same operations. Bytes: 2 H W 3 of uint8 and 2 * 4 H W 3 of float32 that need not be written and read again.
"""

from typing import Any, Final

from service.engines.openvino.graph_builder import int64, joined, opset, sizes, values

_TO_PLANES: Final = [0, 3, 1, 2]
_ARITHMETIC: Final = ("Add", "Subtract", "Multiply", "Divide")


def in_order(model: Any) -> None:
    """Rewrite the way from an input to what is no number by channel, in place. model: openvino.Model, as read."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Transpose" and node.input_value(0).get_node().get_type_name() == "Parameter":
            steps = _by_channel(node)
            if any(step.get_type_name() in _ARITHMETIC for step in steps):
                steps[-1].output(0).replace(_normalised(node, steps))
    model.validate_nodes_and_infer_types()


def _by_channel(transpose: Any) -> list[Any]:
    """The casts, and sums and products with one number a channel, that follow one upon the other."""
    steps: list[Any] = []
    order = transpose.input_value(1).get_node()
    if order.get_type_name() != "Constant" or order.get_data().tolist() != _TO_PLANES:
        return steps
    channels, last = transpose.output(0).get_partial_shape()[1], transpose
    while len(followers := list(last.output(0).get_target_inputs())) == 1:
        last = followers[0].get_node()
        if last.get_type_name() != "Convert" and not (followers[0].get_index() == 0 and _is_number(last, channels)):
            break
        steps.append(last)
    return steps


def _is_number(step: Any, channels: Any) -> bool:
    """Whether its second operand is a constant (1, channels, 1, 1)."""
    if step.get_type_name() not in _ARITHMETIC or step.input_value(1).get_node().get_type_name() != "Constant":
        return False
    return bool(channels.is_static and list(step.input_value(1).get_shape()) == [1, channels.get_length(), 1, 1])


def _normalised(transpose: Any, steps: list[Any]) -> Any:
    """What the last of the steps gives, (N, 3, H, W)."""
    ops, pixels = opset(), transpose.input_value(0)
    compute = dict(zip(_ARITHMETIC, (ops.add, ops.subtract, ops.multiply, ops.divide), strict=True))
    rows = ops.reshape(pixels, int64([0, 0, -1]), True)  # (N, H, W * 3)
    for step in steps:
        if step.get_type_name() == "Convert":
            rows = ops.convert(rows, step.get_output_element_type(0))
        else:
            number = ops.constant(values(step.input_value(1)).ravel())
            rows = compute[step.get_type_name()](rows, ops.tile(number, sizes(pixels, 2)))
    whole = ops.reshape(rows, joined([sizes(pixels, 0, 1, 2), sizes(transpose, 1)]), False)
    return ops.transpose(whole, int64(_TO_PLANES)).output(0)
