"""8-bit convolutions for OpenVINO: ranges that export has measured, written into the graph when it is loaded.

A FakeQuantize before a convolution and one on its weights tell OpenVINO to compute it in int8. A weight gets a scale
for each output channel, symmetric; an activation one scale, with 0 on a step, since padding is 0.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from service.engines.openvino_nodes import float32, opset, values
from service.errors import ManifestError

ROLE: Final = "int8"
_CONVOLUTIONS: Final = ("Convolution", "GroupConvolution")
Ranges = Mapping[str, tuple[float, float]]  # least and greatest value of a convolution's input, by the node's name


def load(path: Path) -> Ranges:
    """Read what model_export/int8_ranges.py wrote. Raises ManifestError when it is something else."""
    try:
        ranges = {name: (float(low), float(high)) for name, (low, high) in json.loads(path.read_bytes()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ManifestError(
            f"{path} holds no ranges ({error}); make it with `alignseg export --calibration`."
        ) from error
    if not ranges or not all(low <= high for low, high in ranges.values()):
        raise ManifestError(f"{path} holds no ranges; make it with `alignseg export --calibration`.")
    return ranges


def quantise(model: Any, ranges: Ranges) -> None:
    """Mark the convolutions that `ranges` names, in place. model: openvino.Model, as read.

    Raises ManifestError when the model lacks one of them.
    """
    convolutions = [node for node in model.get_ordered_ops() if node.get_type_name() in _CONVOLUTIONS]
    named = {node.get_friendly_name().removesuffix("/WithoutBiases"): node for node in convolutions}
    if missing := sorted(set(ranges) - set(named)):
        raise ManifestError(f"ranges are of another model: it has no {missing[0]}. Export the model again.")
    marked: dict[tuple[str, int], Any] = {}  # convolutions that read one tensor share its FakeQuantize
    for name, (low, high) in ranges.items():
        node = named[name]
        source = node.input_value(0)
        key = source.get_node().get_friendly_name(), source.get_index()
        if key not in marked:
            marked[key] = _fake_quantize(source, *with_zero(low, high), levels=256)
        node.input(0).replace_source_output(marked[key].output(0))
        weight = values(node.input_value(1)).reshape(tuple(node.input_value(1).get_shape()))
        # (outputs, inputs, rows, columns), or of a group convolution (groups, outputs, inputs, rows, columns)
        reach = np.maximum(np.abs(weight).max(axis=(-3, -2, -1), keepdims=True), 1e-12)
        node.input(1).replace_source_output(_fake_quantize(float32(weight), -reach, reach, levels=255).output(0))
    model.validate_nodes_and_infer_types()


def with_zero(low: float, high: float) -> tuple[float, float]:
    """The least range around this one of which 0 is one of the 256 values."""
    low, high = min(low, 0.0), max(high, 1e-6)
    if low == 0:
        return low, high
    zero = min(max(round(-low / (high - low) * 255), 1), 254)
    step = max(-low / zero, high / (255 - zero))
    return -zero * step, (255 - zero) * step


def _fake_quantize(source: Any, low: Any, high: Any, levels: int) -> Any:
    ends = [float32(np.asarray(end)) for end in (low, high, low, high)]
    return opset().fake_quantize(source, *ends, levels)
