"""Logits at stride 4 to a class map at full size in one Triton kernel, without storing the full-size logits.

    upsample_argmax(logits (N, K, h, w)) -> (N, H, W) uint8 class ids, and their confidence if requested

It is not a TensorRT plugin because it would save little. It avoids the upsampled logits, which TensorRT's Resize and
ArgMax write once and read once: 2 x 4 K H W bytes. For R101 (K = 19) at 1024x2048 these are 319 MB, 66 us on an H200
(4.8 TB/s) and 1.1 ms on an L4 (300 GB/s), while the network's 1.75 TFLOP take 2.2 ms at the H200's best measured
790 TFLOP/s and 14 ms at an L4's peak of 121: at most 3 to 8 %, and less since neither reaches its peak. For
alignseg-lite at 360x480 it is 15 MB, 3 us. This assumes that Resize and ArgMax (TensorRT's TopK) run at memory speed,
which has not been measured: `nsys profile python -m benchmarks.gpu --match resnet101 1024x2048 TensorRT` would
show it. `python -m benchmarks.gpu --only kernel --match upsample_argmax` times this kernel.
"""

import triton
import triton.language as tl


@triton.jit
def _source(index, small, size):
    """Where pixel `index` of an upsampled axis (align_corners) lies: first small pixel, and the weight of the next."""
    gaps = tl.maximum(size - 1, 1)
    scaled = index * (small - 1)
    start = scaled // gaps
    return start, (scaled - start * gaps).to(tl.float32) / gaps.to(tl.float32)


@triton.jit(do_not_specialize=["height", "width", "small_height", "small_width"])
def upsample_argmax(
    logits,
    height,
    width,
    small_height,
    small_width,
    class_map,
    confidence,
    K: tl.constexpr,
    PIXEL: tl.constexpr,
    CONFIDENCE: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """class_map = argmax(upsample(logits)), of equal ones the first; confidence = round(255 * its softmax).

    logits: (N, K, small_height, small_width), planar (PIXEL == 0) or with pixels PIXEL apart; class_map, confidence:
    (N, height, width) uint8; confidence is written if CONFIDENCE. Grid: (tiles of BLOCK_P pixels, N).
    """
    plane = height * width
    small = small_height * small_width
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    in_raster = pixel < plane
    row, y = _source(tl.where(in_raster, pixel // width, 0), small_height, height)
    column, x = _source(tl.where(in_raster, pixel % width, 0), small_width, width)
    step: tl.constexpr = PIXEL if PIXEL > 0 else 1
    logits += image * small * (PIXEL if PIXEL > 0 else K)
    here = logits + (row * small_width + column) * step
    right = tl.where(column + 1 < small_width, 1, 0) * step
    below = tl.where(row + 1 < small_height, small_width, 0) * step

    best = tl.full((BLOCK_P,), float("-inf"), dtype=tl.float32)
    winner = tl.zeros((BLOCK_P,), dtype=tl.int32)
    total = tl.zeros((BLOCK_P,), dtype=tl.float32)  # of exp(logit - best), for the softmax
    for k in range(K):
        above = tl.load(here).to(tl.float32) * (1.0 - x) + tl.load(here + right).to(tl.float32) * x
        under = tl.load(here + below).to(tl.float32) * (1.0 - x) + tl.load(here + below + right).to(tl.float32) * x
        value = above * (1.0 - y) + under * y
        if CONFIDENCE:
            top = tl.maximum(best, value)
            total = total * tl.exp(best - top) + tl.exp(value - top)
        winner = tl.where(value > best, k, winner)
        best = tl.maximum(best, value)
        here += 1 if PIXEL > 0 else small
    where = image * plane + pixel
    tl.store(class_map + where, winner.to(tl.uint8), mask=in_raster)
    if CONFIDENCE:
        tl.store(confidence + where, (255.0 / total + 0.5).to(tl.uint8), mask=in_raster)
