"""Where a pixel samples, and the pixels and weights that make the sample. Triton functions, called by the kernels.

A position is split into whole pixels and a fraction before anything is added to it, and products of indices and sizes
are integers. So a fraction is as exact at pixel 2000 as at pixel 0, in both conventions: within 3e-7.
"""

import triton
import triton.language as tl


@triton.jit
def same_size(index, offset, size, STANDARD: tl.constexpr):
    """The position that pixel `index` of a raster reads on a map as large as the raster, along one axis.

    Returns whole pixels and the fraction.
    """
    limit = (size + 2).to(tl.float32)  # everything outside the map reads zero, and the limit fits an integer
    if STANDARD:
        offset = tl.where(size > 1, offset, 0.0)  # a map one pixel wide has one position, whatever the offset
        moved, fraction = _split(offset, limit)
        return index + moved, fraction
    moved, fraction = _split(0.5 * offset, limit)
    fraction += index.to(tl.float32) / tl.maximum(size - 1, 1).to(tl.float32) - 0.5  # -0.5 <= fraction < 1.5
    carry, fraction = _split(fraction, 2.0)
    return index + moved + carry, fraction


@triton.jit
def other_size(index, offset, size, raster, STANDARD: tl.constexpr):
    """As same_size, on a map of `size` pixels, which may be fewer or more than the raster's."""
    gaps = tl.maximum(raster - 1, 1)
    if STANDARD:  # (index + offset) * (size - 1) / gaps
        moved, fraction = _split(offset, (2 * raster + 2).to(tl.float32))
        target = tl.minimum(tl.maximum(index + moved, -raster - 1), 2 * raster)  # both outside any map of two pixels
        scaled = target * (size - 1)
        fraction *= (size - 1).to(tl.float32)
        whole = 0
    else:  # index * size / gaps - 0.5 + offset / 2
        whole, fraction = _split(0.5 * offset, (2 * size + 4).to(tl.float32))
        scaled = index * size
        fraction = (fraction - 0.5) * gaps.to(tl.float32)
    start = scaled // gaps
    rest = scaled - start * gaps
    start = tl.where(rest < 0, start - 1, start)  # GPUs round a quotient towards zero
    rest = tl.where(rest < 0, rest + gaps, rest)
    fraction = (rest.to(tl.float32) + fraction) / gaps.to(tl.float32)
    carry, fraction = _split(fraction, (size + 2).to(tl.float32))
    return whole + start + carry, fraction


@triton.jit
def _split(x, limit):
    """x, within -limit and limit, as an integer and a fraction, 0 <= fraction < 1."""
    x = tl.minimum(tl.maximum(x, -limit), limit)
    whole = tl.floor(x)
    return whole.to(tl.int32), x - whole


@triton.jit
def taps(whole, fraction, size):
    """The two neighbours of a position along one axis: index of the first, its weight, the weight of index + 1.

    The index is clamped into the map; a neighbour outside it has the weight zero.
    """
    inside = (whole >= -1) & (whole < size)
    first = tl.where(whole < 0, fraction, 1.0 - fraction)  # at -1 the second neighbour is pixel 0
    second = tl.where((whole >= 0) & (whole < size - 1), fraction, 0.0)
    return tl.minimum(tl.maximum(whole, 0), size - 1), tl.where(inside, first, 0.0), second


@triton.jit
def taps_of_upsampled(index, first, second, small, size):
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
