"""The kernels in Triton, without PyTorch and TensorRT types. README.md has shapes, layouts and tolerances.

A feature map of C channels has one of two layouts:
  PIXEL == 0  planar, NCHW
  PIXEL > 0   channels last, PIXEL elements from one pixel to the next: C in NHWC, C rounded up to 8 in TensorRT's HWC8
Parameters have the order in which TensorRT passes them: inputs, int32 scalars, outputs; then the constants that are
compiled in. All arithmetic is float32, for every storage type.
"""

import triton
import triton.language as tl


@triton.jit
def _positions(index, offset, size, STANDARD: tl.constexpr):
    """The position that pixel `index` of a raster reads on a map as large as the raster, along one axis.

    Returns whole pixels and the fraction. The offset is split before the index is added, so the fraction is as exact at
    pixel 2000 as at pixel 0.
    """
    if STANDARD:
        moved = tl.where(size > 1, offset, 0.0)  # a map one pixel wide has one position, whatever the offset
    else:
        moved = index.to(tl.float32) / tl.maximum(size - 1, 1).to(tl.float32) + 0.5 * offset - 0.5
    limit = (size + 2).to(tl.float32)  # everything outside the map reads zero, and the limit fits an integer
    moved = tl.minimum(tl.maximum(moved, -limit), limit)
    whole = tl.floor(moved)
    return index + whole.to(tl.int32), moved - whole


@triton.jit
def _taps(whole, fraction, size):
    """The two neighbours of a position along one axis: index of the first, its weight, the weight of index + 1.

    The index is clamped into the map; a neighbour outside it has the weight zero.
    """
    inside = (whole >= -1) & (whole < size)
    first = tl.where(whole < 0, fraction, 1.0 - fraction)  # at -1 the second neighbour is pixel 0
    second = tl.where((whole >= 0) & (whole < size - 1), fraction, 0.0)
    return tl.minimum(tl.maximum(whole, 0), size - 1), tl.where(inside, first, 0.0), second


@triton.jit
def _taps_of_upsampled(index, first, second, small, size):
    """Two neighbours on an upsampled map (align_corners) as three on the small map: first index and three weights.

    Pixel X of the large map lies at X * (small - 1) / (size - 1) of the small one, in exact integer arithmetic.
    Requires small <= size: then the second neighbour starts at most one small pixel after the first.
    """
    gaps = tl.maximum(size - 1, 1)
    scaled = index * (small - 1)
    start = scaled // gaps
    rest = scaled - start * gaps
    rest_second = rest + (small - 1)
    carried = rest_second >= gaps
    rest_second = tl.where(carried, rest_second - gaps, rest_second)
    step = 1.0 / gaps.to(tl.float32)
    blend = rest.to(tl.float32) * step
    blend_second = rest_second.to(tl.float32) * step
    near = second * (1.0 - blend_second)
    far = second * blend_second
    weight0 = first * (1.0 - blend) + tl.where(carried, 0.0, near)
    weight1 = first * blend + tl.where(carried, near, far)
    weight2 = tl.where(carried, far, 0.0)
    return start, weight0, weight1, weight2


@triton.jit
def _add_tap(total, base, pixel, weight, channel, PIXEL: tl.constexpr, plane, in_channels):
    """Add weight * base[pixel, channel], without reading pixels of weight zero. (P,), (P,), (C,) -> (P, C)."""
    if PIXEL == 0:
        where = base + channel[None, :] * plane + pixel[:, None]
    else:
        where = base + pixel[:, None] * PIXEL + channel[None, :]
    value = tl.load(where, mask=(weight != 0.0)[:, None] & in_channels[None, :], other=0.0)
    return total + weight[:, None] * value.to(tl.float32)


@triton.jit
def _add_row(total, base, row, column, weight, w0, w1, w2, channel, PIXEL: tl.constexpr, width, plane, in_channels):
    """Add three weighted neighbours of one row."""
    pixel = row * width + column
    total = _add_tap(total, base, pixel, weight * w0, channel, PIXEL, plane, in_channels)
    total = _add_tap(total, base, pixel + 1, weight * w1, channel, PIXEL, plane, in_channels)
    return _add_tap(total, base, pixel + 2, weight * w2, channel, PIXEL, plane, in_channels)


@triton.jit
def _bilinear(total, base, whole_x, x, whole_y, y, height, width, channel, PIXEL: tl.constexpr, in_channels):
    """Add the sample of a (height, width) map at (whole_x + x, whole_y + y), zeros outside."""
    column, left, right = _taps(whole_x, x, width)
    row, above, below = _taps(whole_y, y, height)
    pixel = row * width + column
    plane = height * width
    total = _add_tap(total, base, pixel, above * left, channel, PIXEL, plane, in_channels)
    total = _add_tap(total, base, pixel + 1, above * right, channel, PIXEL, plane, in_channels)
    total = _add_tap(total, base, pixel + width, below * left, channel, PIXEL, plane, in_channels)
    return _add_tap(total, base, pixel + width + 1, below * right, channel, PIXEL, plane, in_channels)


@triton.jit
def _offset(base, which: tl.constexpr, pixel, plane, OFFSETS_PIXEL: tl.constexpr, in_raster):
    """Channel `which` of the offsets at these pixels, float32."""
    if OFFSETS_PIXEL == 0:
        where = base + which * plane + pixel
    else:
        where = base + pixel * OFFSETS_PIXEL + which
    return tl.load(where, mask=in_raster, other=0.0).to(tl.float32)


@triton.jit
def _stride(channels: tl.constexpr, PIXEL: tl.constexpr, plane):
    """Elements from one image of a batch to the next; 64 bits, since a batch can exceed 2^31 elements."""
    if PIXEL == 0:
        return plane.to(tl.int64) * channels
    return plane.to(tl.int64) * PIXEL


@triton.jit
def _store(base, total, pixel, channel, PIXEL: tl.constexpr, plane, mask):
    if PIXEL == 0:
        where = base + channel[None, :] * plane + pixel[:, None]
    else:
        where = base + pixel[:, None] * PIXEL + channel[None, :]
    tl.store(where, total.to(base.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["height", "width", "high_height", "high_width"])
def aligned_aggregate(
    low,
    high,
    offsets,
    height,
    width,
    high_height,
    high_width,
    out,
    C: tl.constexpr,
    STANDARD: tl.constexpr,
    PIXEL: tl.constexpr,
    OFFSETS_PIXEL: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """`out` = sample(upsample(high), offsets[0:2]) + sample(low, offsets[2:4]) without storing the upsampled map.

    low, out: (N, C, height, width); high: (N, C, high_height, high_width); offsets: (N, 4, height, width).
    Grid: (tiles of BLOCK_P pixels, tiles of BLOCK_C channels, N).
    """
    plane = height * width
    image = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_raster = pixel < plane
    in_channels = channel < C
    low += image * _stride(C, PIXEL, plane)
    high += image * _stride(C, PIXEL, high_height * high_width)
    offsets += image * _stride(4, OFFSETS_PIXEL, plane)
    out += image * _stride(C, PIXEL, plane)
    row = pixel // width
    column = pixel - row * width

    dx = _offset(offsets, 2, pixel, plane, OFFSETS_PIXEL, in_raster)
    dy = _offset(offsets, 3, pixel, plane, OFFSETS_PIXEL, in_raster)
    whole_x, x = _positions(column, dx, width, STANDARD)
    whole_y, y = _positions(row, dy, height, STANDARD)
    total = tl.zeros((BLOCK_P, BLOCK_C), dtype=tl.float32)
    total = _bilinear(total, low, whole_x, x, whole_y, y, height, width, channel, PIXEL, in_channels)

    dx = _offset(offsets, 0, pixel, plane, OFFSETS_PIXEL, in_raster)
    dy = _offset(offsets, 1, pixel, plane, OFFSETS_PIXEL, in_raster)
    whole_x, x = _positions(column, dx, width, STANDARD)
    whole_y, y = _positions(row, dy, height, STANDARD)
    index_x, left, right = _taps(whole_x, x, width)
    index_y, above, below = _taps(whole_y, y, height)
    index_x, x0, x1, x2 = _taps_of_upsampled(index_x, left, right, high_width, width)
    index_y, y0, y1, y2 = _taps_of_upsampled(index_y, above, below, high_height, height)
    small = high_height * high_width
    total = _add_row(total, high, index_y, index_x, y0, x0, x1, x2, channel, PIXEL, high_width, small, in_channels)
    total = _add_row(total, high, index_y + 1, index_x, y1, x0, x1, x2, channel, PIXEL, high_width, small, in_channels)
    total = _add_row(total, high, index_y + 2, index_x, y2, x0, x1, x2, channel, PIXEL, high_width, small, in_channels)
    _store(out, total, pixel, channel, PIXEL, plane, in_raster[:, None] & in_channels[None, :])


@triton.jit(do_not_specialize=["height", "width", "context_height", "context_width"])
def aligned_context(
    local,
    context,
    offsets,
    height,
    width,
    context_height,
    context_width,
    out,
    C: tl.constexpr,
    STANDARD: tl.constexpr,
    PIXEL: tl.constexpr,
    OFFSETS_PIXEL: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """`out` = sample(context, offsets) + local.

    local, out: (N, C, height, width); context: (N, C, context_height, context_width); offsets: (N, 2, height, width).
    Grid: as for aligned_aggregate.
    """
    plane = height * width
    image = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_raster = pixel < plane
    in_channels = channel < C
    local += image * _stride(C, PIXEL, plane)
    context += image * _stride(C, PIXEL, context_height * context_width)
    offsets += image * _stride(2, OFFSETS_PIXEL, plane)
    out += image * _stride(C, PIXEL, plane)
    row = pixel // width
    column = pixel - row * width

    dx = _offset(offsets, 0, pixel, plane, OFFSETS_PIXEL, in_raster)
    dy = _offset(offsets, 1, pixel, plane, OFFSETS_PIXEL, in_raster)
    whole_x, x = _scaled_positions(column, dx, context_width, width, STANDARD)
    whole_y, y = _scaled_positions(row, dy, context_height, height, STANDARD)
    total = tl.zeros((BLOCK_P, BLOCK_C), dtype=tl.float32)
    total = _add_tap(total, local, pixel, in_raster.to(tl.float32), channel, PIXEL, plane, in_channels)
    total = _bilinear(
        total, context, whole_x, x, whole_y, y, context_height, context_width, channel, PIXEL, in_channels
    )
    _store(out, total, pixel, channel, PIXEL, plane, in_raster[:, None] & in_channels[None, :])


@triton.jit
def _scaled_positions(index, offset, size, raster, STANDARD: tl.constexpr):
    """As _positions, on a map whose size differs from the raster's."""
    gaps = tl.maximum(raster - 1, 1).to(tl.float32)
    limit = (size + raster + 2).to(tl.float32)
    if STANDARD:
        offset = tl.minimum(tl.maximum(offset, -2 * limit), 2 * limit)
        position = (index.to(tl.float32) + offset) * ((size - 1).to(tl.float32) / gaps)
    else:
        position = index.to(tl.float32) * (size.to(tl.float32) / gaps) - 0.5 + 0.5 * offset
    position = tl.minimum(tl.maximum(position, -limit), limit)
    whole = tl.floor(position)
    return whole.to(tl.int32), position - whole
