"""Measures the input ranges of convolutions on typical images: all that OpenVINO needs to compute them in int8.

The ranges, a few kilobytes, lie beside the ONNX file; service/engines/openvino/quantization.py writes them into the
graph when it is loaded. No outliers are cut off, since they decide classes (see tensorrt_build/quantization.py). The
convolutions that read the image, output offsets or logits, or read pooled regions stay in float: their errors would be
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

from service.types import PICTURES, UInt8Array

IMAGES: Final = 40  # enough for the extreme values of street scenes
# The convolutions that stay in float: those that output offsets or logits, read the image, or read the pooled regions.
# Matches both forms of the offset generators: as trained (`.2`) and merged (`.to_offsets`).
_STAYS_FLOAT: Final = re.compile(r"offsets\.(2|to_offsets)/|^head\.3/|^backbone\.stem\.0|^align_cm\.pooled")
Ranges = dict[str, tuple[float, float]]


def convolutions(model: ModelProto, fewest_channels: int = 1) -> list[NodeProto]:
    """The convolutions to compute in 8 bits, in the order of the graph, for OpenVINO and TensorRT.

    model: as exported, or with its norms folded; each kernel is an initializer, or a Cast of one.
    fewest_channels: a convolution with fewer input channels per group, or fewer output channels, stays in float.
    """
    shapes = {weight.name: weight.dims for weight in model.graph.initializer}
    for cast in model.graph.node:
        if cast.op_type == "Cast" and cast.input[0] in shapes:
            shapes[cast.output[0]] = shapes[cast.input[0]]
    candidates = [node for node in model.graph.node if node.op_type == "Conv" and not _STAYS_FLOAT.search(node.name)]
    return [node for node in candidates if min(shapes[node.input[1]][:2]) >= fewest_channels]


def measure(model: ModelProto, images: Sequence[UInt8Array]) -> Ranges:
    """The smallest and the largest value of each convolution's input, by the convolution's name.

    model: as exported, with function bodies. images: (H, W, 3) uint8 RGB of any sizes; IMAGES are enough.
    Raises ValueError without images.
    """
    if not images:
        raise ValueError("got no images; expected typical images to measure int8 ranges")
    chosen = convolutions(model)
    names = list(dict.fromkeys(node.input[0] for node in chosen))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns of initializers that the reduced graph does not use
    session = onnxruntime.InferenceSession(_with_extremes(model, names), options, providers=["CPUExecutionProvider"])
    extremes = np.array([session.run(None, {PICTURES: image[None]}) for image in images])
    smallest, largest = extremes[:, : len(names)].min(axis=0), extremes[:, len(names) :].max(axis=0)
    ranges = {name: (float(low), float(high)) for name, low, high in zip(names, smallest, largest, strict=True)}
    return {node.name: ranges[node.input[0]] for node in chosen}


def write(path: Path, ranges: Ranges) -> None:
    """Write JSON: {name: [smallest, largest]}."""
    path.write_text(json.dumps(ranges, indent=1) + "\n")


def _with_extremes(model: ModelProto, names: Sequence[str]) -> bytes:
    """The model with the smallest values of these tensors as its outputs, followed by the largest."""
    reduced = ModelProto.FromString(model.SerializeToString())
    del reduced.graph.output[:]
    for op_type in ("ReduceMin", "ReduceMax"):
        for name in names:
            result = f"{name}.{op_type}"
            reduced.graph.node.append(helper.make_node(op_type, [name], [result], keepdims=0))
            reduced.graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, []))
    return bytes(reduced.SerializeToString())
