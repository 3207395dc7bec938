"""Weights in 8 bits, with and without VNNI."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("openvino", reason="openvino is not installed: pip install -e '.[cpu]'")
import openvino

from service.engines.openvino import quantization
from service.engines.openvino.graph_builder import float32, opset

WEIGHT = np.linspace(-1, 0.5, 4 * 4 * 9, dtype=np.float32).reshape(4, 4, 3, 3)


def model(kernels: npt.NDArray[np.float32]) -> Any:
    """One convolution named "conv"; of five axes: a grouped one."""
    ops = opset()
    source = ops.parameter([1, 4, -1, -1], np.float32)
    convolve = ops.group_convolution if kernels.ndim == 5 else ops.convolution
    node = convolve(source, float32(kernels), [1, 1], [1, 1], [1, 1], [1, 1], name="conv")
    return openvino.Model([ops.result(node)], [source], "one")


def largest_step(kernels: npt.NDArray[np.float32], low: float, *, sums_of_16_bits: bool) -> float:
    """The largest weight, counted in steps, after quantisation."""
    quantised = model(kernels)
    quantization.quantise(quantised, {"conv": (low, 6.0)}, sums_of_16_bits=sums_of_16_bits)
    (node,) = (node for node in quantised.get_ordered_ops() if node.get_friendly_name() == "conv")
    ends = [node.input_value(1).get_node().input_value(i).get_node().get_data() for i in (1, 2)]
    step = (ends[1] - ends[0]) / (node.input_value(1).get_node().get_attributes()["levels"] - 1)
    return float(np.abs(np.rint(kernels / step)).max())


def test_pairs_of_products_fit_into_16_bits_without_vnni() -> None:
    assert largest_step(WEIGHT, 0.0, sums_of_16_bits=False) == 127
    steps = largest_step(WEIGHT, 0.0, sums_of_16_bits=True)
    assert steps >= 63  # no more precision is lost than has to be
    assert 2 * 255 * steps <= 2**15 - 1


def test_depthwise_and_signed_convolutions_keep_all_steps() -> None:
    assert largest_step(WEIGHT[:, :1, None], 0.0, sums_of_16_bits=True) == 127  # (groups, 1, 1, 3, 3): no pairs
    assert largest_step(WEIGHT, -1.0, sums_of_16_bits=True) == 127  # oneDNN halves these itself
