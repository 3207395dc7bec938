"""AlignFA's and AlignCM's nodes for OpenVINO, which does not read the function bodies that the ONNX file carries.

Built from OpenVINO's own operations when a model is read; the algebra is model_export/functions.py's. Nodes are
alignseg.AlignedAggregate(low, high, offsets) and alignseg.AlignedContext(local, context, offsets); their attribute
`sampling` names one of the two conventions of model_export/alignseg/sampling.py.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

DOMAIN: Final = "alignseg"


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
    high_x, high_y, low_x, low_y = ops.split(offsets, _int64(1), 4).outputs()
    return ops.add(raster.sample(high_up, high_x, high_y), raster.sample(low, low_x, low_y)).outputs()  # type: ignore[no-any-return]


def _aligned_context(node: Any) -> list[Any]:
    """sample(context, offsets) + local."""
    local, context, offsets = (node.get_input(i) for i in range(3))
    raster = _Raster(offsets, node.get_attribute("sampling"))
    x, y = _ops().split(offsets, _int64(1), 2).outputs()
    return _ops().add(raster.sample(context, x, y), local).outputs()  # type: ignore[no-any-return]


class _Raster:
    """The (H, W) pixels of the offsets, each at its position in -1 .. 1."""

    def __init__(self, offsets: Any, sampling: str) -> None:
        ops = _ops()
        self.standard = sampling == "standard"
        shape = ops.shape_of(offsets)
        self.y, self.y_step = _linspace(ops.gather(shape, _int64(2), _int64(0)))
        self.x, self.x_step = _linspace(ops.gather(shape, _int64(3), _int64(0)))
        self.y = ops.unsqueeze(self.y, _int64(1))

    def sample(self, feature: Any, dx: Any, dy: Any) -> Any:
        """feature: (N, C, h, w); dx, dy: (N, 1, H, W). Bilinear, zeros outside; (N, C, H, W)."""
        ops = _ops()
        x_unit, y_unit = self._units(feature)
        channel, last = _int64([1]), _int64(3)
        x = ops.add(self.x, ops.multiply(ops.squeeze(dx, channel), x_unit))
        y = ops.add(self.y, ops.multiply(ops.squeeze(dy, channel), y_unit))
        grid = ops.concat([ops.unsqueeze(x, last), ops.unsqueeze(y, last)], 3)
        how = {"align_corners": self.standard, "mode": "bilinear", "padding_mode": "zeros"}
        return ops.grid_sample(feature, grid, how)

    def _units(self, feature: Any) -> tuple[Any, Any]:
        """Grid units that an offset of one moves by, along x and y."""
        if self.standard:
            return self.x_step, self.y_step
        ops = _ops()
        size = ops.convert(ops.shape_of(feature), "f32")
        width, height = (ops.gather(size, _int64(axis), _int64(0)) for axis in (3, 2))
        return ops.divide(_float(1), width), ops.divide(_float(1), height)


def _linspace(steps: Any) -> tuple[Any, Any]:
    """-1 .. 1 in `steps` steps, and the distance between two; [-1] for one."""
    ops = _ops()
    gaps = ops.convert(ops.maximum(ops.subtract(steps, _int64(1)), _int64(1)), "f32")
    step = ops.divide(_float(2), gaps)
    positions = ops.range(_int64(0), steps, _int64(1), "f32")
    return ops.subtract(ops.multiply(positions, step), _float(1)), step


def _ops() -> Any:
    import openvino.opset15 as ops  # noqa: PLC0415 - optional

    return ops


def _int64(value: int | Sequence[int]) -> Any:
    return _ops().constant(np.array(value, dtype=np.int64))


def _float(value: float) -> Any:
    return _ops().constant(np.array(value, dtype=np.float32))
