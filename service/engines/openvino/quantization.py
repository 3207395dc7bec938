"""8-bit convolutions for OpenVINO: ranges that the export has measured, written into the graph when it is loaded.

A FakeQuantize before a convolution and one on its weights make OpenVINO compute it in int8. Weights get a symmetric
scale for each output channel; an activation gets one scale, with 0 exactly on a step, since padding is 0.

Processors without VNNI multiply pairs of bytes and add them in 16 bits (vpmaddubsw), which saturate: 2 * 255 * 127 is
twice the largest number. There weights use half of their 255 steps, so that no sum is too large. Two kinds of
convolutions need no such care: depthwise ones, which add no pairs, and those of an input below 0, for which oneDNN
halves the weights itself (https://oneapi-src.github.io/oneDNN/dev_guide_int8_computations.html).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from service.engines.openvino.graph_builder import constant_values, float32, opset
from service.errors import ManifestError

ROLE: Final = "int8"
_CONVOLUTIONS: Final = ("Convolution", "GroupConvolution")
Ranges = Mapping[str, tuple[float, float]]  # smallest and largest value of a convolution's input, by the node's name


def load(path: Path) -> Ranges:
    """Read the file that model_export/onnx_export/calibration.py wrote. Raises ManifestError for any other content."""
    try:
        ranges = {name: (float(low), float(high)) for name, (low, high) in json.loads(path.read_bytes()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise _not_ranges(path, str(error)) from error
    if not ranges or not all(low <= high for low, high in ranges.values()):
        raise _not_ranges(path, "it is empty, or a range has its minimum above its maximum")
    return ranges


def _not_ranges(path: Path, reason: str) -> ManifestError:
    return ManifestError(
        f"{path} holds no int8 ranges ({reason}); expected {{name: [smallest, largest]}}. "
        "Measure them with `alignseg export --calibration`."
    )


def quantise(model: Any, ranges: Ranges, *, sums_of_16_bits: bool = False) -> None:
    """Quantise the convolutions that `ranges` names, in place. model: openvino.Model as read.

    sums_of_16_bits: the processor has no VNNI.
    Raises ManifestError when the model lacks one of them.
    """
    convolutions = [node for node in model.get_ordered_ops() if node.get_type_name() in _CONVOLUTIONS]
    by_name = {node.get_friendly_name().removesuffix("/WithoutBiases"): node for node in convolutions}
    if missing := sorted(set(ranges) - set(by_name)):
        raise ManifestError(
            f"The int8 ranges belong to another model: this one has no convolution {missing[0]}. "
            "Export the model again with `alignseg export --calibration`."
        )
    quantised: dict[tuple[str, int], Any] = {}  # convolutions that read the same tensor share its FakeQuantize
    for name, (low, high) in ranges.items():
        node = by_name[name]
        source = node.input_value(0)
        key = source.get_node().get_friendly_name(), source.get_index()
        if key not in quantised:
            quantised[key] = _fake_quantize(source, *with_zero(low, high), levels=256)
        node.input(0).replace_source_output(quantised[key].output(0))
        # (outputs, inputs, rows, columns), or of a group convolution (groups, outputs, inputs, rows, columns)
        weight = constant_values(node.input_value(1)).reshape(tuple(node.input_value(1).get_shape()))
        largest = np.maximum(np.abs(weight).max(axis=(-3, -2, -1), keepdims=True), 1e-12)
        if sums_of_16_bits and low >= 0 and weight.shape[-3] > 1:
            largest *= 2
        node.input(1).replace_source_output(_fake_quantize(float32(weight), -largest, largest, levels=255).output(0))
    model.validate_nodes_and_infer_types()


def with_zero(low: float, high: float) -> tuple[float, float]:
    """The smallest range around this one of whose 256 values one is 0."""
    low, high = min(low, 0.0), max(high, 1e-6)
    if low == 0:
        return low, high
    zero = min(max(round(-low / (high - low) * 255), 1), 254)
    step = max(-low / zero, high / (255 - zero))
    return -zero * step, (255 - zero) * step


def _fake_quantize(source: Any, low: Any, high: Any, levels: int) -> Any:
    ends = [float32(np.asarray(end)) for end in (low, high, low, high)]
    return opset().fake_quantize(source, *ends, levels)
