"""Stores weights that are exact in float16 as float16: half the file size, the same numbers."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper


def store_exact_halves(model: ModelProto) -> int:
    """Replace each such float32 matrix or kernel by a float16 one and a Cast, in place; runtimes fold the Cast on load.

    These are the weights of a checkpoint that was saved with half=True. Returns how many were replaced.
    """
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.ndim < 2 or not _exact(values):
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}/Cast", to=TensorProto.FLOAT))
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *rest])
    return len(casts)


def restore_float32(model: ModelProto) -> None:
    """Undo `store_exact_halves` in place: float32 weights under their names, without the Casts."""
    weights = {weight.name: weight for weight in model.graph.initializer}
    for node in [n for n in model.graph.node if n.op_type == "Cast" and n.input[0] in weights]:
        stored = weights[node.input[0]]
        if stored.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(stored).astype(np.float32)
            stored.CopyFrom(numpy_helper.from_array(values, node.output[0]))
            model.graph.node.remove(node)


def _exact(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bool:
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float16).astype(np.float32) == values).all())
