"""AlignFA's and AlignCM's nodes for OpenVINO, which does not read the function bodies that the ONNX file carries.

Built from OpenVINO's own operations when a model is read; the algebra is model_export/functions.py's. Nodes are
alignseg.AlignedAggregate(low, high, offsets) and alignseg.AlignedContext(local, context, offsets); their attribute
`sampling` names one of the two conventions of model_export/alignseg/sampling.py.

A bilinear sample is a weighted sum of four pixels, so of four rows of the table (pixels, channels): what
EmbeddingBagPackedSum computes. GridSample's kernel gathers channel by channel in planar layout; this one reads each
pixel's channels in one piece, in the layout that convolutions leave them in.

Positions are exact in every precision. Pixel i at offset d reads b(i) + u * d, b and u given by the sizes alone. With
b = floor(b) + r and m = r + u * d,

    floor(b + u * d) = floor(b) + floor(m),   frac(b + u * d) = frac(m),

so what is large, floor(b), is an integer that no precision hint touches, and m is as small as the offset: in bfloat16
i + d itself would be off by a quarter of a pixel at i = 64.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

DOMAIN: Final = "alignseg"
_FARTHEST: Final = 8191.0  # pixels that an offset may move by: beyond any picture, and no overflow


def extensions() -> list[Any]:
    """What openvino.Core.add_extension takes, one for each node type."""
    from openvino.frontend.onnx import ConversionExtension  # noqa: PLC0415 - optional

    nodes = {"AlignedAggregate": _aligned_aggregate, "AlignedContext": _aligned_context}
    return [ConversionExtension(name, DOMAIN, convert) for name, convert in nodes.items()]


def _aligned_aggregate(node: Any) -> list[Any]:
    """sample(upsample(high), offsets[:, :2]) + sample(low, offsets[:, 2:])."""
    low, high, offsets = (node.get_input(i) for i in range(3))
    ops, raster = _ops(), _Raster(offsets, node.get_attribute("sampling"))
    high_up = ops.interpolate(
        high,
        ops.gather(ops.shape_of(low), _int64([2, 3]), _int64(0)),
        mode="linear_onnx",
        shape_calculation_mode="sizes",
        coordinate_transformation_mode="align_corners",
        axes=_int64([2, 3]),
    ).output(0)
    high_x, high_y, low_x, low_y = raster.components(4)
    both = ops.add(raster.sample(high_up, high_x, high_y), raster.sample(low, low_x, low_y))
    return raster.as_map(both, low).outputs()  # type: ignore[no-any-return]


def _aligned_context(node: Any) -> list[Any]:
    """sample(context, offsets) + local."""
    local, context, offsets = (node.get_input(i) for i in range(3))
    raster = _Raster(offsets, node.get_attribute("sampling"))
    sampled = raster.as_map(raster.sample(context, *raster.components(2)), local)
    return _ops().add(sampled, local).outputs()  # type: ignore[no-any-return]


class _Raster:
    """The (H, W) pixels of the offsets, (N, 2 * k, H, W)."""

    def __init__(self, offsets: Any, sampling: str) -> None:
        self.offsets = offsets
        self.standard = sampling == "standard"

    def components(self, count: int) -> list[Any]:
        """The offsets' channels, (N, H, W, 1) each."""
        ops = _ops()
        return ops.split(ops.transpose(self.offsets, _int64([0, 2, 3, 1])), _int64(3), count).outputs()  # type: ignore[no-any-return]

    def sample(self, feature: Any, dx: Any, dy: Any) -> Any:
        """feature: (N, C, h, w); dx, dy: (N, H, W, 1). Bilinear, zeros outside; (N * H * W, C)."""
        ops = _ops()
        rows, row_weights = self._taps(dy, 2, feature)  # (N, H, W, 2)
        columns, column_weights = self._taps(dx, 3, feature)
        first_of_picture = ops.multiply(_range(_size(feature, 0)), ops.multiply(_size(feature, 2), _size(feature, 3)))
        begins = ops.add(
            ops.multiply(rows, _size(feature, 3)), ops.reshape(first_of_picture, _int64([-1, 1, 1, 1]), False)
        )
        pixels = ops.add(ops.unsqueeze(begins, _int64(4)), ops.unsqueeze(columns, _int64(3)))  # (N, H, W, 2, 2)
        weights = ops.multiply(ops.unsqueeze(row_weights, _int64(4)), ops.unsqueeze(column_weights, _int64(3)))
        of_four = _int64([-1, 4])
        return ops.embedding_bag_packed_sum(
            _as_rows(feature), ops.reshape(pixels, of_four, False), ops.reshape(weights, of_four, False)
        )

    def as_map(self, rows: Any, like: Any) -> Any:
        """(N * H * W, C) -> (N, C, H, W); like: a map of C channels."""
        ops = _ops()
        shape = ops.concat([ops.gather(ops.shape_of(self.offsets), _int64([0, 2, 3]), _int64(0)), _channels(like)], 0)
        return ops.transpose(ops.reshape(rows, shape, False), _int64([0, 3, 1, 2]))

    def _taps(self, offset: Any, axis: int, feature: Any) -> tuple[Any, Any]:
        """The two pixels along an axis that each position lies between, and their weights: 0 for one outside."""
        ops, size = _ops(), _size(feature, axis)
        whole, rest, unit = self._base(axis, size)
        moved = ops.add(rest, ops.multiply(ops.clamp(offset, -_FARTHEST, _FARTHEST), unit))
        below = ops.floor(moved)
        fraction = ops.subtract(moved, below)
        tap = ops.add(ops.add(whole, ops.convert(below, "i32")), _int32([0, 1]))
        inside = ops.minimum(ops.maximum(tap, _int32(0)), ops.subtract(size, _int32(1)))
        weight = ops.add(ops.multiply(fraction, _float([-1, 1])), _float([1, 0]))
        return inside, ops.multiply(weight, ops.convert(ops.equal(inside, tap), "f32"))

    def _base(self, axis: int, size: Any) -> tuple[Any, Any, Any]:
        """Where a pixel of offset 0 reads, whole pixels and the rest, and pixels that an offset of one moves by."""
        ops, steps = _ops(), _size(self.offsets, axis)
        gaps = ops.convert(ops.maximum(ops.subtract(steps, _int32(1)), _int32(1)), "f32")
        if self.standard:
            unit = ops.divide(ops.convert(ops.subtract(size, _int32(1)), "f32"), gaps)
            position = ops.multiply(ops.convert(_range(steps), "f32"), unit)
        else:
            unit = _float(0.5)
            step = ops.divide(ops.convert(size, "f32"), gaps)
            position = ops.subtract(ops.multiply(ops.convert(_range(steps), "f32"), step), _float(0.5))
        whole, along = ops.floor(position), _int64([1, -1, 1, 1] if axis == 2 else [1, 1, -1, 1])
        rest = ops.subtract(position, whole)
        return ops.reshape(ops.convert(whole, "i32"), along, False), ops.reshape(rest, along, False), unit


def _as_rows(feature: Any) -> Any:
    """(N, C, h, w) -> (N * h * w, C)."""
    ops = _ops()
    pixels = ops.transpose(feature, _int64([0, 2, 3, 1]))
    return ops.reshape(pixels, ops.concat([_int64([-1]), _channels(feature)], 0), False)


def _channels(feature: Any) -> Any:
    ops = _ops()
    return ops.gather(ops.shape_of(feature), _int64([1]), _int64(0))


def _size(feature: Any, axis: int) -> Any:
    ops = _ops()
    return ops.gather(ops.shape_of(feature, "i32"), _int64(axis), _int64(0))


def _range(count: Any) -> Any:
    return _ops().range(_int32(0), count, _int32(1), "i32")


def _ops() -> Any:
    import openvino.opset15 as ops  # noqa: PLC0415 - optional

    return ops


def _int64(value: int | Sequence[int]) -> Any:
    return _ops().constant(np.array(value, dtype=np.int64))


def _int32(value: int | Sequence[int]) -> Any:
    return _ops().constant(np.array(value, dtype=np.int32))


def _float(value: float | Sequence[float]) -> Any:
    return _ops().constant(np.array(value, dtype=np.float32))
