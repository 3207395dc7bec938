"""The kernels in Triton, without PyTorch and TensorRT types. README.md has shapes, layouts and tolerances.

A feature map of C channels has one of two layouts:
  PIXEL == 0  planar, NCHW
  PIXEL > 0   channels last, PIXEL elements from one pixel to the next: C in NHWC, C rounded up to 8 in TensorRT's HWC8
Parameters have the order in which TensorRT passes them: inputs, int32 scalars, outputs; then the constants that are
compiled in. All arithmetic is float32, for every storage type.

Each thread has one pixel. It computes the pixel's indices and weights once, and then loops over channels: planar one
channel at a time, so that the threads of a warp read neighbouring pixels; channels last 16 bytes of channels at a time,
LANES threads to a pixel. So no thread needs a value of another one, and no version of Triton inserts a barrier.
"""

import triton
import triton.language as tl

from model_export.kernels.positions import other_size, same_size, taps, taps_of_upsampled


@triton.jit
def _tile(height, width, LANES: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr):
    """Row, column and lane of each thread; a program has a tile of BLOCK_H x BLOCK_W pixels."""
    thread = tl.arange(0, BLOCK_H * BLOCK_W * LANES)
    pixel = thread // LANES
    tiles = (width + BLOCK_W - 1) // BLOCK_W
    tile_row = tl.program_id(0) // tiles
    tile_column = tl.program_id(0) - tile_row * tiles
    return tile_row * BLOCK_H + pixel // BLOCK_W, tile_column * BLOCK_W + pixel % BLOCK_W, thread % LANES


@triton.jit
def _offset(base, which: tl.constexpr, pixel, plane, OFFSETS_PIXEL: tl.constexpr, in_raster):
    """Channel `which` of the offsets at these pixels, float32."""
    if OFFSETS_PIXEL == 0:
        where = base + which * plane + pixel
    else:
        where = base + pixel * OFFSETS_PIXEL + which
    return tl.load(where, mask=in_raster, other=0.0).to(tl.float32)


@triton.jit
def _image(base, image, channels: tl.constexpr, PIXEL: tl.constexpr, plane):
    """Where an image of a batch begins; 64 bits, since a batch can exceed 2^31 elements."""
    if PIXEL == 0:
        return base + image * (plane.to(tl.int64) * channels)
    return base + image * (plane.to(tl.int64) * PIXEL)


@triton.jit
def _vector(base, pixel, channel, PIXEL: tl.constexpr, plane):
    """Addresses of (P,) pixels by (P, V) channels. base: of the image, or of its first channel in this program."""
    if PIXEL == 0:
        return base + channel * plane + pixel[:, None]
    return base + (pixel * PIXEL)[:, None] + channel


@triton.jit
def _add_tap(total, base, pixel, weight, channel, PIXEL: tl.constexpr, plane, in_channels):
    """Add weight * base[pixel, channel], without reading pixels of weight zero. (P,), (P,), (P, V) -> (P, V)."""
    where = _vector(base, pixel, channel, PIXEL, plane)
    value = tl.load(where, mask=(weight != 0.0)[:, None] & in_channels, other=0.0)
    return total + weight[:, None] * value.to(tl.float32)


@triton.jit
def _add_pair(total, base, pixel, weight, w0, w1, channel, PIXEL: tl.constexpr, plane, in_channels):
    """Add two weighted neighbours of one row."""
    total = _add_tap(total, base, pixel, weight * w0, channel, PIXEL, plane, in_channels)
    return _add_tap(total, base, pixel + 1, weight * w1, channel, PIXEL, plane, in_channels)


@triton.jit
def _add_three(total, base, pixel, weight, w0, w1, w2, channel, PIXEL: tl.constexpr, plane, in_channels):
    """Add three weighted neighbours of one row."""
    total = _add_pair(total, base, pixel, weight, w0, w1, channel, PIXEL, plane, in_channels)
    return _add_tap(total, base, pixel + 2, weight * w2, channel, PIXEL, plane, in_channels)


@triton.jit
def _lane_channels(lane, VECTOR: tl.constexpr):
    """The channels of each thread in one step of the loop, (P, V)."""
    return (lane * VECTOR)[:, None] + tl.arange(0, VECTOR)[None, :]


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
    LANES: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """`out` = sample(upsample(high), offsets[0:2]) + sample(low, offsets[2:4]) without storing the upsampled map.

    low, out: (N, C, height, width); high: (N, C, high_height, high_width); offsets: (N, 4, height, width).
    Grid: (tiles of BLOCK_H x BLOCK_W pixels, tiles of BLOCK_C channels, N).
    """
    VECTOR: tl.constexpr = 128 // low.dtype.element_ty.primitive_bitwidth if PIXEL > 0 else 1
    STEP: tl.constexpr = LANES * VECTOR
    UNROLLED: tl.constexpr = min(BLOCK_C, 4 * STEP)
    plane, small = height * width, high_height * high_width
    image = tl.program_id(2).to(tl.int64)
    low, out = _image(low, image, C, PIXEL, plane), _image(out, image, C, PIXEL, plane)
    high = _image(high, image, C, PIXEL, small)
    offsets = _image(offsets, image, 4, OFFSETS_PIXEL, plane)
    row, column, lane = _tile(height, width, LANES, BLOCK_H, BLOCK_W)
    in_raster = (row < height) & (column < width)
    pixel = row * width + column

    dx = _offset(offsets, 2, pixel, plane, OFFSETS_PIXEL, in_raster)
    dy = _offset(offsets, 3, pixel, plane, OFFSETS_PIXEL, in_raster)
    high_dx = _offset(offsets, 0, pixel, plane, OFFSETS_PIXEL, in_raster)
    high_dy = _offset(offsets, 1, pixel, plane, OFFSETS_PIXEL, in_raster)
    whole_x, x = same_size(column, dx, width, STANDARD)
    whole_y, y = same_size(row, dy, height, STANDARD)
    low_x, left, right = taps(whole_x, x, width)
    low_y, above, below = taps(whole_y, y, height)
    low_pixel = low_y * width + low_x
    whole_x, x = same_size(column, high_dx, width, STANDARD)
    whole_y, y = same_size(row, high_dy, height, STANDARD)
    high_x, x0, x1 = taps(whole_x, x, width)
    high_y, y0, y1 = taps(whole_y, y, height)
    high_x, x0, x1, x2 = taps_of_upsampled(high_x, x0, x1, high_width, width)
    high_y, y0, y1, y2 = taps_of_upsampled(high_y, y0, y1, high_height, height)
    high_pixel = high_y * high_width + high_x

    for first in range(0, BLOCK_C, UNROLLED):
        for step in tl.static_range(0, UNROLLED, STEP):
            channel = tl.program_id(1) * BLOCK_C + first + step + _lane_channels(lane, VECTOR)
            valid = channel < C
            total = tl.zeros((BLOCK_H * BLOCK_W * LANES, VECTOR), dtype=tl.float32)
            total = _add_pair(total, low, low_pixel, above, left, right, channel, PIXEL, plane, valid)
            total = _add_pair(total, low, low_pixel + width, below, left, right, channel, PIXEL, plane, valid)
            line = high_pixel
            total = _add_three(total, high, line, y0, x0, x1, x2, channel, PIXEL, small, valid)
            line += high_width
            total = _add_three(total, high, line, y1, x0, x1, x2, channel, PIXEL, small, valid)
            line += high_width
            total = _add_three(total, high, line, y2, x0, x1, x2, channel, PIXEL, small, valid)
            where = _vector(out, pixel, channel, PIXEL, plane)
            tl.store(where, total.to(out.dtype.element_ty), mask=in_raster[:, None] & valid)


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
    LANES: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """`out` = sample(context, offsets) + local.

    local, out: (N, C, height, width); context: (N, C, context_height, context_width); offsets: (N, 2, height, width).
    Grid: as for aligned_aggregate.
    """
    VECTOR: tl.constexpr = 128 // local.dtype.element_ty.primitive_bitwidth if PIXEL > 0 else 1
    STEP: tl.constexpr = LANES * VECTOR
    UNROLLED: tl.constexpr = min(BLOCK_C, 4 * STEP)
    plane, small = height * width, context_height * context_width
    image = tl.program_id(2).to(tl.int64)
    local, out = _image(local, image, C, PIXEL, plane), _image(out, image, C, PIXEL, plane)
    context = _image(context, image, C, PIXEL, small)
    offsets = _image(offsets, image, 2, OFFSETS_PIXEL, plane)
    row, column, lane = _tile(height, width, LANES, BLOCK_H, BLOCK_W)
    in_raster = (row < height) & (column < width)
    pixel = row * width + column

    dx = _offset(offsets, 0, pixel, plane, OFFSETS_PIXEL, in_raster)
    dy = _offset(offsets, 1, pixel, plane, OFFSETS_PIXEL, in_raster)
    whole_x, x = other_size(column, dx, context_width, width, STANDARD)
    whole_y, y = other_size(row, dy, context_height, height, STANDARD)
    index_x, left, right = taps(whole_x, x, context_width)
    index_y, above, below = taps(whole_y, y, context_height)
    index = index_y * context_width + index_x

    for first in range(0, BLOCK_C, UNROLLED):
        for step in tl.static_range(0, UNROLLED, STEP):
            channel = tl.program_id(1) * BLOCK_C + first + step + _lane_channels(lane, VECTOR)
            valid = channel < C
            total = tl.zeros((BLOCK_H * BLOCK_W * LANES, VECTOR), dtype=tl.float32)
            total = _add_tap(total, local, pixel, in_raster.to(tl.float32), channel, PIXEL, plane, valid)
            total = _add_pair(total, context, index, above, left, right, channel, PIXEL, small, valid)
            total = _add_pair(total, context, index + context_width, below, left, right, channel, PIXEL, small, valid)
            where = _vector(out, pixel, channel, PIXEL, plane)
            tl.store(where, total.to(out.dtype.element_ty), mask=in_raster[:, None] & valid)
