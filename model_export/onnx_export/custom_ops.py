"""The ONNX domain `alignseg`: AlignFA's and AlignCM's aggregation as one node each, with an ONNX function as its body.

ONNX Runtime inlines the body. OpenVINO ignores it, so service/engines/openvino/custom_ops.py converts the nodes.
TensorRT imports the body if there is one, and otherwise looks for a plugin of the node's name.

AlignedAggregate(low (N, C, H, W), high (N, C, h, w), offsets (N, 4, H, W)) -> (N, C, H, W)
AlignedContext(local (N, C, H, W), context (N, C, h, w), offsets (N, 2, H, W)) -> (N, C, H, W)
Both have the attribute `sampling`, "standard" or "published"; a model contains the bodies of its own sampling.
"""

import torch
from onnx import FunctionProto, ModelProto, parser
from torch import Tensor, nn

from model_export.alignseg import AlignSeg
from model_export.alignseg.sampling import Sampling

DOMAIN = "alignseg"
AGGREGATE = "AlignedAggregate"
CONTEXT = "AlignedContext"
NODES = frozenset({AGGREGATE, CONTEXT})
# GridSample exists from 16 on. From 20 on its mode is named "linear", which TensorRT's parser (up to 11.1 at least)
# reads as nearest without a warning. 18 is what PyTorch's exporter writes.
OPSET = 18

# The grid positions of the (H, W) pixels, -1 .. 1 along x and y, as in alignseg/sampling.py.
_RASTER = """
    zero = Constant <value = int64 {0}> ()
    one = Constant <value = int64 {1}> ()
    two = Constant <value = float {2.0}> ()
    height = Shape <start = 2, end = 3> (offsets)
    width = Shape <start = 3, end = 4> (offsets)
    height_scalar = Squeeze (height)
    width_scalar = Squeeze (width)
    row = Range (zero, height_scalar, one)
    column = Range (zero, width_scalar, one)
    row_typed = CastLike (row, offsets)
    column_typed = CastLike (column, offsets)
    two_typed = CastLike (two, offsets)
    one_typed = CastLike (one, offsets)
    row_gaps = Sub (height, one)
    column_gaps = Sub (width, one)
    row_divisor = Max (row_gaps, one)
    column_divisor = Max (column_gaps, one)
    row_divisor_typed = CastLike (row_divisor, offsets)
    column_divisor_typed = CastLike (column_divisor, offsets)
    row_step = Div (two_typed, row_divisor_typed)
    column_step = Div (two_typed, column_divisor_typed)
    row_scaled = Mul (row_typed, row_step)
    column_scaled = Mul (column_typed, column_step)
    y_of_row = Sub (row_scaled, one_typed)
    x_of_column = Sub (column_scaled, one_typed)
    to_column = Constant <value = int64[2] {-1, 1}> ()
    y = Reshape (y_of_row, to_column)
"""

# `feature` sampled at channels `first` and `first` + 1 of the offsets. _UNIT: an offset of one in grid units.
_SAMPLE = """
    {feature}_split_axis = Constant <value = int64[1] {{1}}> ()
    {feature}_x_first = Constant <value = int64[1] {{{first}}}> ()
    {feature}_y_first = Constant <value = int64[1] {{{second}}}> ()
    {feature}_y_last = Constant <value = int64[1] {{{third}}}> ()
    {feature}_dx = Slice (offsets, {feature}_x_first, {feature}_y_first, {feature}_split_axis)
    {feature}_dy = Slice (offsets, {feature}_y_first, {feature}_y_last, {feature}_split_axis)
    {unit}
    {feature}_x_move = Mul ({feature}_dx, {feature}_x_unit)
    {feature}_y_move = Mul ({feature}_dy, {feature}_y_unit)
    {feature}_x = Add (x_of_column, {feature}_x_move)
    {feature}_y = Add (y, {feature}_y_move)
    {feature}_x_last = Squeeze ({feature}_x, {feature}_split_axis)
    {feature}_y_squeezed = Squeeze ({feature}_y, {feature}_split_axis)
    {feature}_last_axis = Constant <value = int64[1] {{-1}}> ()
    {feature}_grid_x = Unsqueeze ({feature}_x_last, {feature}_last_axis)
    {feature}_grid_y = Unsqueeze ({feature}_y_squeezed, {feature}_last_axis)
    {feature}_grid = Concat <axis = -1> ({feature}_grid_x, {feature}_grid_y)
    {feature}_sampled = GridSample <mode = "bilinear", padding_mode = "zeros", align_corners = {align}>
        ({feature}, {feature}_grid)
"""
_UNIT: dict[Sampling, str] = {
    "standard": """
    {feature}_x_unit = Identity (column_step)
    {feature}_y_unit = Identity (row_step)
""",
    "published": """
    {feature}_height = Shape <start = 2, end = 3> ({feature})
    {feature}_width = Shape <start = 3, end = 4> ({feature})
    {feature}_height_typed = CastLike ({feature}_height, offsets)
    {feature}_width_typed = CastLike ({feature}_width, offsets)
    {feature}_x_unit = Div (one_typed, {feature}_width_typed)
    {feature}_y_unit = Div (one_typed, {feature}_height_typed)
""",
}


def aggregate(sampling: Sampling) -> FunctionProto:
    """AlignedAggregate's body: Resize of high, two GridSamples, Add."""
    return _function(
        f"""{AGGREGATE} <sampling> (low, high, offsets) => (aligned) {{
    low_shape = Shape <start = 2, end = 4> (low)
    high_shape = Shape <start = 0, end = 2> (high)
    size = Concat <axis = 0> (high_shape, low_shape)
    high_up = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (high, , , size)
    {_RASTER} {_sample("high_up", 0, sampling)} {_sample("low", 2, sampling)}
    aligned = Add (high_up_sampled, low_sampled)
}}"""
    )


def context(sampling: Sampling) -> FunctionProto:
    """AlignedContext's body: a GridSample of the pooled context, Add."""
    return _function(
        f"""{CONTEXT} <sampling> (local, context, offsets) => (aligned) {{
    {_RASTER} {_sample("context", 0, sampling)}
    aligned = Add (context_sampled, local)
}}"""
    )


def _sample(feature: str, first: int, sampling: Sampling) -> str:
    return _SAMPLE.format(
        feature=feature,
        first=first,
        second=first + 1,
        third=first + 2,
        unit=_UNIT[sampling].format(feature=feature),
        align=int(sampling == "standard"),
    )


def _function(text: str) -> FunctionProto:
    return parser.parse_function(f'<opset_import: ["" : {OPSET}], domain: "{DOMAIN}">\n{text}')


class _Node(nn.Module):
    """Replaces a module during the export, which writes it as one node of the domain."""

    def __init__(self, op_type: str, sampling: Sampling) -> None:
        super().__init__()
        self.op_type = op_type
        self.sampling = sampling

    def forward(self, raster: Tensor, other: Tensor, offsets: Tensor) -> Tensor:
        """raster: (N, C, H, W), whose shape the result has."""
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{self.op_type}",
            (raster, other, offsets),
            {"sampling": self.sampling},
            dtype=raster.dtype,
            shape=raster.shape,
            version=1,
        )


def replace_aggregations(network: AlignSeg) -> None:
    """Replace the aggregation modules of `network`, which have no weights; it can then be exported but not run."""
    sampling = network.architecture.sampling
    network.align_cm.aggregate = _Node(CONTEXT, sampling)
    for align_fa in network.align_fa.values():
        align_fa.aggregate = _Node(AGGREGATE, sampling)


def attach_bodies(model: ModelProto, sampling: Sampling) -> None:
    """Add the function bodies of this sampling to the model."""
    model.functions.extend([aggregate(sampling), context(sampling)])
