"""AlignFA's and AlignCM's nodes for OpenVINO, which does not read the function bodies that the ONNX file carries.

Built from OpenVINO's own operations when a model is read; the algebra is that of
model_export/onnx_export/custom_ops.py. Nodes are
alignseg.AlignedAggregate(low, high, offsets) and alignseg.AlignedContext(local, context, offsets); their attribute
`sampling` names one of the two conventions of model_export/alignseg/sampling.py.

A bilinear sample is a weighted sum of four pixels, so of four rows of the table (pixels, channels): what
EmbeddingBagPackedSum computes. GridSample's kernel gathers channel by channel in planar layout; this one reads each
pixel's channels in one piece, in the layout that convolutions leave them in. AlignFA's two samples are one sum of eight
rows, of a table that holds both maps, one below the other.

Where to read is computed in planes, (N, k, H, W), and turned to (pixels, 4 * k) at the end: where only the innermost
two or four numbers differ, OpenVINO computes them one by one.

Positions are exact in every precision. Pixel i at offset d reads b(i) + u * d, b and u given by the sizes alone. With
b = floor(b) + r and m = r + u * d,

    floor(b + u * d) = floor(b) + floor(m),   frac(b + u * d) = frac(m),

so what is large, floor(b), is an integer that no precision hint touches, and m is as small as the offset: in bfloat16
i + d itself would be off by a quarter of a pixel at i = 64.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from service.engines.openvino.graph_builder import counted, float32, int32, int64, joined, opset, size, sizes

DOMAIN: Final = "alignseg"
_FARTHEST: Final = 8191.0  # pixels that an offset may move by: beyond any picture, and no overflow
_LARGEST: Final = float(np.finfo(np.float32).max)


def extensions() -> list[Any]:
    """What openvino.Core.add_extension takes, one for each node type."""
    from openvino.frontend.onnx import ConversionExtension  # noqa: PLC0415 - optional

    nodes = {"AlignedAggregate": _aligned_aggregate, "AlignedContext": _aligned_context}
    return [ConversionExtension(name, DOMAIN, convert) for name, convert in nodes.items()]


def _aligned_aggregate(node: Any) -> list[Any]:
    """sample(upsample(high), offsets[:, :2]) + sample(low, offsets[:, 2:])."""
    low, high, offsets = (node.get_input(i) for i in range(3))
    ops, raster = opset(), _Raster(offsets, node.get_attribute("sampling"))
    high_up = ops.interpolate(
        high,
        sizes(low, 2, 3),
        mode="linear_onnx",
        shape_calculation_mode="sizes",
        coordinate_transformation_mode="align_corners",
        axes=int64([2, 3]),
    ).output(0)
    return raster.sampled([high_up, _copied(low)], low).outputs()  # type: ignore[no-any-return]


def _aligned_context(node: Any) -> list[Any]:
    """sample(context, offsets) + local."""
    local, context, offsets = (node.get_input(i) for i in range(3))
    sampled = _Raster(offsets, node.get_attribute("sampling")).sampled([context], local)
    return opset().add(sampled, local).outputs()  # type: ignore[no-any-return]


class _Raster:
    """The (H, W) pixels of the offsets, (N, 2 * k, H, W)."""

    def __init__(self, offsets: Any, sampling: str) -> None:
        self.offsets = offsets
        self.standard = sampling == "standard"

    def sampled(self, features: Sequence[Any], like: Any) -> Any:
        """The sum of k features, each moved by its own offsets; bilinear, zeros outside.

        features: (N, C, h, w), all of one size. like: a map of C channels. Returns (N, C, H, W).
        """
        ops, tables = opset(), [_as_rows(feature) for feature in features]
        table = joined(tables) if len(tables) > 1 else tables[0]
        summed = ops.embedding_bag_packed_sum(table, *self._bags(features[0], len(features)))
        shape = joined([sizes(self.offsets, 0, 2, 3), sizes(like, 1)])
        return ops.transpose(ops.reshape(summed, shape, False), int64([0, 3, 1, 2]))

    def _bags(self, feature: Any, count: int) -> tuple[Any, Any]:
        """Which rows of the table make a pixel, and their weights, (N * H * W, 4 * count), of features of this size."""
        ops = opset()
        pairs = ops.reshape(self.offsets, joined([int64([0, count, 2, -1]), sizes(self.offsets, 3)]), True)
        dx, dy = (ops.squeeze(d, int64(2)) for d in ops.split(pairs, int64(2), 2).outputs())
        rows, columns = self._taps(dy, 2, feature), self._taps(dx, 3, feature)
        first, width = self._first(feature, count), size(feature, 3)
        begins = [ops.add(ops.multiply(row, width), first) for row, _ in rows]
        pixels = [ops.add(begin, column) for begin in begins for column, _ in columns]
        weights = [ops.multiply(row, column) for _, row in rows for _, column in columns]
        return _turned(pixels, 4 * count), _turned(weights, 4 * count)

    def _first(self, feature: Any, count: int) -> Any:
        """Where in the table each picture of each feature begins, (N, k, 1, 1) int32."""
        ops = opset()
        pixels, batch = ops.multiply(size(feature, 2), size(feature, 3)), size(feature, 0)
        table = int32(np.arange(count).reshape(1, count, 1, 1))
        picture = ops.reshape(counted(batch), int64([-1, 1, 1, 1]), False)
        return ops.multiply(ops.add(ops.multiply(table, batch), picture), pixels)

    def _taps(self, offset: Any, axis: int, feature: Any) -> list[tuple[Any, Any]]:
        """The two pixels along an axis that each position lies between, and their weights: 0 for one outside."""
        ops, extent = opset(), size(feature, axis)
        whole, rest, unit = self._base(axis, extent)
        moved = ops.add(rest, ops.multiply(ops.clamp(offset, -_FARTHEST, _FARTHEST), unit))
        below = ops.floor(moved)
        fraction = ops.subtract(moved, below)
        first = ops.add(whole, ops.convert(below, "i32"))
        taps = []
        for tap, weight in ((first, ops.subtract(float32(1), fraction)), (ops.add(first, int32(1)), fraction)):
            inside = ops.minimum(ops.maximum(tap, int32(0)), ops.subtract(extent, int32(1)))
            taps.append((inside, ops.multiply(weight, ops.convert(ops.equal(inside, tap), "f32"))))
        return taps

    def _base(self, axis: int, extent: Any) -> tuple[Any, Any, Any]:
        """Where a pixel of offset 0 reads, whole pixels and the rest, and pixels that an offset of one moves by."""
        ops, steps = opset(), size(self.offsets, axis)
        gaps = ops.convert(ops.maximum(ops.subtract(steps, int32(1)), int32(1)), "f32")
        if self.standard:
            unit = ops.divide(ops.convert(ops.subtract(extent, int32(1)), "f32"), gaps)
            position = ops.multiply(ops.convert(counted(steps), "f32"), unit)
        else:
            unit = float32(0.5)
            step = ops.divide(ops.convert(extent, "f32"), gaps)
            position = ops.subtract(ops.multiply(ops.convert(counted(steps), "f32"), step), float32(0.5))
        whole, along = ops.floor(position), int64([1, 1, -1, 1] if axis == 2 else [1, 1, 1, -1])
        rest = ops.subtract(position, whole)
        return ops.reshape(ops.convert(whole, "i32"), along, False), ops.reshape(rest, along, False), unit


def _turned(planes: Sequence[Any], of_each: int) -> Any:
    """Planes of (N, k, H, W) -> (N * H * W, of_each), of_each = planes * k."""
    ops = opset()
    flat = ops.reshape(ops.concat(planes, 1), int64([0, of_each, -1]), True)
    return ops.reshape(ops.transpose(flat, int64([0, 2, 1])), int64([-1, of_each]), False)


def _copied(feature: Any) -> Any:
    """The same values. What a convolution with a sum in it leaves, OpenVINO would turn twice before it is a table."""
    return opset().clamp(feature, -_LARGEST, _LARGEST)


def _as_rows(feature: Any) -> Any:
    """(N, C, h, w) -> (N * h * w, C)."""
    ops = opset()
    pixels = ops.transpose(feature, int64([0, 2, 3, 1]))
    return ops.reshape(pixels, joined([int64([-1]), sizes(feature, 1)]), False)
