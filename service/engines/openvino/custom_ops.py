"""AlignFA's and AlignCM's custom nodes for OpenVINO, which ignores the function bodies that the ONNX file carries.

OpenVINO calls these conversions when it reads a model; they build the nodes from its own operations, with the algebra
of model_export/onnx_export/custom_ops.py. The nodes are alignseg.AlignedAggregate(low, high, offsets) and
alignseg.AlignedContext(local, context, offsets); their attribute `sampling` names one of the two conventions of
model_export/alignseg/sampling.py.

A bilinear sample is a weighted sum of four pixels, that is of four rows of a table (pixels, channels): this is what
EmbeddingBagPackedSum computes. GridSample's kernel gathers channel by channel in planar layout; this one reads each
pixel's channels in one piece, in the layout that convolutions leave them in. AlignFA's two samples are one sum of eight
rows, of a table that holds both maps, one below the other.

Positions are computed in planes, (N, k, H, W), and transposed to (pixels, 4 * k) at the end: where only the innermost
two or four numbers differ, OpenVINO computes them one by one.

Positions are exact in every precision. Pixel i at offset d reads b(i) + u * d, where b and u depend only on the sizes.
With b = floor(b) + r and m = r + u * d,

    floor(b + u * d) = floor(b) + floor(m),   frac(b + u * d) = frac(m),

so the large part, floor(b), is an integer that no precision hint touches, and m is as small as the offset: in bfloat16
i + d itself would be off by a quarter of a pixel at i = 64.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from service.engines.openvino.graph_builder import arange, concat, extent, float32, int32, int64, opset, shape_of_axes

DOMAIN: Final = "alignseg"
_LARGEST_OFFSET: Final = 8191.0  # pixels: reaches outside any image, and does not overflow
_LARGEST_FLOAT: Final = float(np.finfo(np.float32).max)


def extensions() -> list[Any]:
    """The conversions of both node types, for openvino.Core.add_extension."""
    from openvino.frontend.onnx import ConversionExtension  # noqa: PLC0415 - optional

    nodes = {"AlignedAggregate": _aligned_aggregate, "AlignedContext": _aligned_context}
    return [ConversionExtension(name, DOMAIN, convert) for name, convert in nodes.items()]


def _aligned_aggregate(node: Any) -> list[Any]:
    """sample(upsample(high), offsets[:, :2]) + sample(low, offsets[:, 2:])."""
    low, high, offsets = (node.get_input(i) for i in range(3))
    ops, sampler = opset(), _Sampler(offsets, node.get_attribute("sampling"))
    high_up = ops.interpolate(
        high,
        shape_of_axes(low, 2, 3),
        mode="linear_onnx",
        shape_calculation_mode="sizes",
        coordinate_transformation_mode="align_corners",
        axes=int64([2, 3]),
    ).output(0)
    return sampler.sum_of_samples([high_up, _copy(low)], low).outputs()  # type: ignore[no-any-return]


def _aligned_context(node: Any) -> list[Any]:
    """sample(context, offsets) + local."""
    local, context, offsets = (node.get_input(i) for i in range(3))
    sampled = _Sampler(offsets, node.get_attribute("sampling")).sum_of_samples([context], local)
    return opset().add(sampled, local).outputs()  # type: ignore[no-any-return]


class _Sampler:
    """Samples k features at the (H, W) pixels of their offsets, (N, 2 * k, H, W)."""

    def __init__(self, offsets: Any, sampling: str) -> None:
        self.offsets = offsets
        self.standard = sampling == "standard"

    def sum_of_samples(self, features: Sequence[Any], like: Any) -> Any:
        """The sum of k features, each moved by its own offsets; bilinear, zeros outside.

        features: (N, C, h, w), all of one size. like: a map of C channels, for their number. Returns (N, C, H, W).
        """
        ops, tables = opset(), [_feature_rows(feature) for feature in features]
        table = concat(tables) if len(tables) > 1 else tables[0]
        summed = ops.embedding_bag_packed_sum(table, *self._rows_and_weights(features[0], len(features)))
        shape = concat([shape_of_axes(self.offsets, 0, 2, 3), shape_of_axes(like, 1)])
        return ops.transpose(ops.reshape(summed, shape, False), int64([0, 3, 1, 2]))

    def _rows_and_weights(self, feature: Any, count: int) -> tuple[Any, Any]:
        """The rows of the table that a pixel is a sum of, and their weights: (N * H * W, 4 * count) each.

        feature: one of the `count` features, for their size.
        """
        ops = opset()
        pairs = ops.reshape(self.offsets, concat([int64([0, count, 2, -1]), shape_of_axes(self.offsets, 3)]), True)
        dx, dy = (ops.squeeze(d, int64(2)) for d in ops.split(pairs, int64(2), 2).outputs())
        rows, columns = self._taps(dy, 2, feature), self._taps(dx, 3, feature)
        first, width = self._first_rows(feature, count), extent(feature, 3)
        begins = [ops.add(ops.multiply(row, width), first) for row, _ in rows]
        pixels = [ops.add(begin, column) for begin in begins for column, _ in columns]
        weights = [ops.multiply(row, column) for _, row in rows for _, column in columns]
        return _to_rows(pixels, 4 * count), _to_rows(weights, 4 * count)

    def _first_rows(self, feature: Any, count: int) -> Any:
        """The table row at which each image of each feature begins, (N, k, 1, 1) int32."""
        ops = opset()
        pixels, batch = ops.multiply(extent(feature, 2), extent(feature, 3)), extent(feature, 0)
        table = int32(np.arange(count).reshape(1, count, 1, 1))
        image = ops.reshape(arange(batch), int64([-1, 1, 1, 1]), False)
        return ops.multiply(ops.add(ops.multiply(table, batch), image), pixels)

    def _taps(self, offset: Any, axis: int, feature: Any) -> list[tuple[Any, Any]]:
        """The two pixels along an axis that each position lies between, with their weights; outside the map, 0."""
        ops, length = opset(), extent(feature, axis)
        whole, rest, unit = self._base(axis, length)
        moved = ops.add(rest, ops.multiply(ops.clamp(offset, -_LARGEST_OFFSET, _LARGEST_OFFSET), unit))
        below = ops.floor(moved)
        fraction = ops.subtract(moved, below)
        first = ops.add(whole, ops.convert(below, "i32"))
        taps = []
        for tap, weight in ((first, ops.subtract(float32(1), fraction)), (ops.add(first, int32(1)), fraction)):
            inside = ops.minimum(ops.maximum(tap, int32(0)), ops.subtract(length, int32(1)))
            taps.append((inside, ops.multiply(weight, ops.convert(ops.equal(inside, tap), "f32"))))
        return taps

    def _base(self, axis: int, length: Any) -> tuple[Any, Any, Any]:
        """Where a pixel reads at offset 0, as whole pixels and a fraction, and how many pixels an offset of 1 moves it.

        length: the features' extent along the axis.
        """
        ops, steps = opset(), extent(self.offsets, axis)
        gaps = ops.convert(ops.maximum(ops.subtract(steps, int32(1)), int32(1)), "f32")
        if self.standard:
            unit = ops.divide(ops.convert(ops.subtract(length, int32(1)), "f32"), gaps)
            position = ops.multiply(ops.convert(arange(steps), "f32"), unit)
        else:
            unit = float32(0.5)
            step = ops.divide(ops.convert(length, "f32"), gaps)
            position = ops.subtract(ops.multiply(ops.convert(arange(steps), "f32"), step), float32(0.5))
        whole, along = ops.floor(position), int64([1, 1, -1, 1] if axis == 2 else [1, 1, 1, -1])
        rest = ops.subtract(position, whole)
        return ops.reshape(ops.convert(whole, "i32"), along, False), ops.reshape(rest, along, False), unit


def _to_rows(planes: Sequence[Any], row_length: int) -> Any:
    """Planes of (N, k, H, W) each -> (N * H * W, row_length), row_length = len(planes) * k."""
    ops = opset()
    flat = ops.reshape(ops.concat(planes, 1), int64([0, row_length, -1]), True)
    return ops.reshape(ops.transpose(flat, int64([0, 2, 1])), int64([-1, row_length]), False)


def _copy(feature: Any) -> Any:
    """The same values. OpenVINO would transpose the output of a convolution fused with a sum twice before the table."""
    return opset().clamp(feature, -_LARGEST_FLOAT, _LARGEST_FLOAT)


def _feature_rows(feature: Any) -> Any:
    """(N, C, h, w) -> (N * h * w, C)."""
    ops = opset()
    pixels = ops.transpose(feature, int64([0, 2, 3, 1]))
    return ops.reshape(pixels, concat([int64([-1]), shape_of_axes(feature, 1)]), False)
