"""OpenVINO's graphs before and after each rewrite: the same numbers at any size."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from service.engines.onnxruntime.engine import ROLE
from service.model_folder import manifest as manifests
from service.settings import REPOSITORY
from service.types import CLASS_MAP, LOGITS

pytest.importorskip("openvino", reason="openvino is not installed: pip install -e '.[cpu]'")
import openvino

from service.engines import reference_check
from service.engines.openvino import custom_ops
from service.engines.openvino.graph_builder import int64, opset, shape_of_axes
from service.engines.openvino.rewrite_argmax import rowwise_argmax
from service.engines.openvino.rewrite_input_layout import keep_channels_last
from service.engines.openvino.rewrite_offset_conv import block_offset_convs

FOLDER = REPOSITORY / "weights" / "alignseg-lite"
SIZES = [(1, 1), (1, 9), (2, 3), (7, 5), (8, 12)]
Floats = npt.NDArray[np.float32]


def computed(model: Any, values: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """A model's outputs in float32, compiled for these values' shape as the engine does."""
    fixed = model.clone()
    fixed.reshape(list(values.shape))
    compiled = openvino.Core().compile_model(fixed, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = compiled(values)
    return [outputs[output] for output in compiled.outputs]


def types(model: Any) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def convolution(kernels: Floats, stride: int = 1) -> Any:
    """A grouped convolution as a model. kernels: (groups, outputs, C, 3, 3)."""
    ops = opset()
    source = ops.parameter([-1, kernels.shape[0] * kernels.shape[2], -1, -1], np.float32)
    half = ops.convert(ops.constant(kernels.astype(np.float16)), "f32")  # as the exported file stores them
    node = ops.group_convolution(source, half, [stride, stride], [1, 1], [1, 1], [1, 1])
    return openvino.Model([ops.result(node)], [source], "convolution")


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_offsets_computed_in_blocks_are_the_same(groups: int) -> None:
    rng = np.random.default_rng(groups)
    kernels = rng.normal(size=(groups, 2, 5, 3, 3)).astype(np.float32)
    plain, wide = convolution(kernels), convolution(kernels)
    block_offset_convs(wide)
    assert "Slice" in types(wide)
    for height, width in SIZES:
        values = rng.normal(size=(2, 5 * groups, height, width)).astype(np.float32)
        (expected,), (actual,) = computed(plain, values), computed(wide, values)
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_other_convolutions_are_not_rewritten() -> None:
    for model in (
        convolution(np.ones((2, 3, 4, 3, 3), np.float32)),
        convolution(np.ones((2, 2, 4, 3, 3), np.float32), 2),
    ):
        before = types(model)
        block_offset_convs(model)
        assert types(model) == before


def argmax(corners: str, classes: int = 5, strongest: int = 1) -> Any:
    """pictures (N, classes, h, w), upsampled to four times the size -> classes of the strongest, as a model."""
    ops = opset()
    source = ops.parameter([-1, classes, -1, -1], np.float32)
    large = ops.multiply(shape_of_axes(source, 2, 3), int64([4, 4]))
    upsampled = ops.interpolate(
        source, large, "linear_onnx", "sizes", coordinate_transformation_mode=corners, axes=int64([2, 3])
    )
    class_ids = ops.topk(upsampled, int64(strongest), 1, "max", "none", "i64").output(1)
    return openvino.Model([ops.result(class_ids)], [source], "argmax")


def test_a_rowwise_argmax_is_the_same() -> None:
    rng = np.random.default_rng(0)
    plain, rowwise = argmax("align_corners"), argmax("align_corners")
    rowwise_argmax(rowwise)
    assert "EmbeddingBagPackedSum" in types(rowwise)
    for height, width in SIZES:
        values = rng.normal(size=(3, 5, height, width)).astype(np.float32)
        (expected,), (actual,) = computed(plain, values), computed(rowwise, values)
        assert actual.shape == expected.shape
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("make", [lambda: argmax("half_pixel"), lambda: argmax("align_corners", strongest=2)])
def test_other_argmaxes_are_not_rewritten(make: Callable[[], Any]) -> None:
    model = make()
    before = types(model)
    rowwise_argmax(model)
    assert types(model) == before


def normalisation(number: npt.NDArray[Any], order: tuple[int, ...] = (0, 3, 1, 2)) -> Any:
    """pictures (N, H, W, 3) uint8 -> planes, less and divided by `number`, summed over rows, as a model.

    number: stored as it is, and cast to float32.
    """
    ops = opset()

    def constant() -> Any:
        stored = ops.constant(number)
        return stored if number.dtype == np.float32 else ops.convert(stored, "f32")

    source = ops.parameter([-1, -1, -1, 3], np.uint8)
    floats = ops.convert(ops.transpose(source, int64(order)), "f32")
    normalised = ops.divide(ops.subtract(floats, constant()), constant())
    return openvino.Model([ops.result(normalised), ops.result(ops.reduce_sum(normalised, int64(2)))], [source], "n")


@pytest.mark.parametrize("stored", [np.float32, np.float16])  # float16: numbers that it holds exactly, such as 127
def test_pixels_normalised_channels_last_are_the_same(stored: type[np.floating[Any]]) -> None:
    rng = np.random.default_rng(0)
    number = rng.uniform(50, 150, (1, 3, 1, 1)).astype(stored)
    plain, channels_last = normalisation(number), normalisation(number)
    keep_channels_last(channels_last)
    assert "Tile" in types(channels_last)
    for height, width in SIZES:
        pictures = rng.integers(0, 256, (2, height, width, 3), np.uint8)
        for expected, actual in zip(computed(plain, pictures), computed(channels_last, pictures), strict=True):
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: normalisation(np.ones((1, 3, 1, 1), np.float32), (0, 3, 2, 1)),
        lambda: normalisation(np.ones((1, 3, 1, 7), np.float32)),
    ],
)
def test_other_transpositions_are_not_rewritten(make: Callable[[], Any]) -> None:
    model = make()
    before = types(model)
    keep_channels_last(model)
    assert types(model) == before


@pytest.mark.parametrize("shape", [(1, 185, 241), (2, 97, 131)])
def test_the_rewritten_shipped_model_gives_the_same(shape: tuple[int, int, int]) -> None:
    core = openvino.Core()
    core.add_extension(custom_ops.extensions())
    path = manifests.verified_file(FOLDER, manifests.load(FOLDER), ROLE)
    aggregations = [node for node in onnx.load(path).graph.node if node.op_type == "AlignedAggregate"]
    assert len(aggregations) >= 3
    plain, rewritten = core.read_model(path), core.read_model(path)
    for rewrite in (keep_channels_last, block_offset_convs, rowwise_argmax):
        rewrite(rewritten)
    assert types(rewritten).count("Tile") == types(plain).count("Tile") + 2  # mean and deviation
    assert types(rewritten).count("Slice") == types(plain).count("Slice") + len(aggregations)
    assert types(rewritten).count("EmbeddingBagPackedSum") == types(plain).count("EmbeddingBagPackedSum") + 1
    pictures = np.concatenate(
        [np.roll(reference_check.street_scene(shape[1:]), 40 * i, axis=2) for i in range(shape[0])]
    )
    names = [output.get_any_name() for output in plain.outputs]
    expected, actual = (dict(zip(names, computed(model, pictures), strict=True)) for model in (plain, rewritten))
    assert np.abs(actual[LOGITS] - expected[LOGITS]).max() <= 1e-4
    assert (actual[CLASS_MAP] == expected[CLASS_MAP]).mean() >= 0.9999
