"""How far the inputs of convolutions reach on typical pictures: all that OpenVINO needs to compute them in int8.

The table, a few kilobytes, lies beside the ONNX file; service/engines/openvino/quantization.py writes it into the
graph when that is loaded. Ranges go all the way, for outliers carry classes (see tensorrt_build/quantization.py). What
reads the image, what a position or a class comes from directly, and the pooled regions stay out: their errors are
positions and classes.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper

from service import types
from service.types import UInt8Array

PICTURES: Final = 40  # enough: the extremes of a street
# The convolutions that stay in float: what makes offsets, what makes logits, what reads the image, the pooled regions.
# Matches the names of both forms of the offset generators: as trained (`.2`) and merged (`.to_offsets`).
_STAYS_FLOAT: Final = re.compile(r"offsets\.(2|to_offsets)/|^head\.3/|^backbone\.stem\.0|^align_cm\.pooled")
Ranges = dict[str, tuple[float, float]]


def convolutions(model: ModelProto, fewest_channels: int = 1) -> list[NodeProto]:
    """Return the convolutions to compute in 8 bits, in the order of the graph. OpenVINO and TensorRT share this list.

    model: as exported, or with its norms folded; each kernel is an initializer, or a Cast of one.
    fewest_channels: a convolution with fewer input channels per group, or fewer output channels, stays in float.
    """
    shapes = {weight.name: weight.dims for weight in model.graph.initializer}
    for cast in model.graph.node:
        if cast.op_type == "Cast" and cast.input[0] in shapes:
            shapes[cast.output[0]] = shapes[cast.input[0]]
    candidates = [node for node in model.graph.node if node.op_type == "Conv" and not _STAYS_FLOAT.search(node.name)]
    return [node for node in candidates if min(shapes[node.input[1]][:2]) >= fewest_channels]


def measure(model: ModelProto, pictures: Sequence[UInt8Array]) -> Ranges:
    """The least and the greatest value of each convolution's input, by the convolution's name.

    model: as exported, with function bodies. pictures: (H, W, 3) uint8 RGB of any sizes; PICTURES are enough.
    Raises ValueError for none.
    """
    if not pictures:
        raise ValueError("int8 ranges are measured on pictures; got none")
    chosen = convolutions(model)
    names = list(dict.fromkeys(node.input[0] for node in chosen))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # what a cut graph leaves unused is no news
    session = onnxruntime.InferenceSession(_with_extremes(model, names), options, providers=["CPUExecutionProvider"])
    found = np.array([session.run(None, {types.PICTURES: picture[None]}) for picture in pictures])
    least, greatest = found[:, : len(names)].min(axis=0), found[:, len(names) :].max(axis=0)
    ranges = {name: (float(low), float(high)) for name, low, high in zip(names, least, greatest, strict=True)}
    return {node.name: ranges[node.input[0]] for node in chosen}


def write(path: Path, ranges: Ranges) -> None:
    """As JSON: {name: [least, greatest]}."""
    path.write_text(json.dumps(ranges, indent=1) + "\n")


def _with_extremes(model: ModelProto, names: Sequence[str]) -> bytes:
    """The model with the least values of these tensors as its outputs, and then the greatest."""
    tapped = ModelProto.FromString(model.SerializeToString())
    del tapped.graph.output[:]
    for op_type in ("ReduceMin", "ReduceMax"):
        for name in names:
            result = f"{name}.{op_type}"
            tapped.graph.node.append(helper.make_node(op_type, [name], [result], keepdims=0))
            tapped.graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, []))
    return bytes(tapped.SerializeToString())
