"""The kernels against float64 PyTorch, through Triton's interpreter on the CPU."""

import pytest
import torch

from benchmarks.gpu import launch
from model_export.kernels.tactics import TACTICS, Tactic
from tests.model_export.kernels import call_as_tensorrt, reference
from tests.model_export.kernels.reference import SAMPLINGS, Shape

WHOLE = Tactic(8, 16, 4, 4)  # mostly one program an image: the interpreter is slow
ROW = Tactic(1, 128, 2, 4)
SHAPES = tuple(Shape(s.n, min(s.c, 3), s.raster, s.small) for s in reference.SHAPES)


def check(result: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    assert result.dtype == dtype
    rtol, atol = reference.TOLERANCES[dtype]
    torch.testing.assert_close(result.double(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("kind", reference.OFFSETS)
def test_aggregate(kind: str, sampling: str) -> None:
    for shape in SHAPES:
        low, high, offsets = reference.maps(shape, 4, kind, torch.float32)
        result = launch.aligned_aggregate(low, high, offsets, sampling, WHOLE)
        check(result, reference.aggregate(low, high, offsets, sampling), torch.float32)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("kind", reference.OFFSETS)
def test_context(kind: str, sampling: str) -> None:
    for shape in SHAPES:
        local, pooled, offsets = reference.maps(Shape(shape.n, shape.c, shape.raster, (3, 3)), 2, kind, torch.float32)
        result = launch.aligned_context(local, pooled, offsets, sampling, WHOLE)
        check(result, reference.context(local, pooled, offsets, sampling), torch.float32)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("kind", ["random", "borders", "huge"])
def test_float32_is_as_exact_on_large_maps(kind: str, sampling: str) -> None:
    """Offsets of hundreds of pixels, and context maps as large as 3 x 260: only fractions may be rounded."""
    low, high, offsets = reference.maps(Shape(1, 2, (2, 300), (2, 75)), 4, kind, torch.float32)
    result = launch.aligned_aggregate(low, high, offsets, sampling, ROW)
    check(result, reference.aggregate(low, high, offsets, sampling), torch.float32)
    for small in ((3, 260), (2, 75), (5, 400)):
        local, context, offsets = reference.maps(Shape(1, 2, (2, 300), small), 2, kind, torch.float32)
        result = launch.aligned_context(local, context, offsets, sampling, ROW)
        check(result, reference.context(local, context, offsets, sampling), torch.float32)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_storage_with_float32_arithmetic(dtype: torch.dtype, sampling: str) -> None:
    shape = Shape(1, 8, (2, 300), (2, 75))  # wide: a float16 grid would be 0.07 pixels off here
    low, high, offsets = reference.maps(shape, 4, "random", dtype)
    check(
        launch.aligned_aggregate(low, high, offsets, sampling, WHOLE),
        reference.aggregate(low, high, offsets, sampling),
        dtype,
    )


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_channels_last_and_offsets_of_another_type(sampling: str) -> None:
    low, high, offsets = reference.maps(Shape(2, 24, (5, 6), (3, 4)), 4, "random", torch.float16)
    low, high = (x.to(memory_format=torch.channels_last) for x in (low, high))
    result = launch.aligned_aggregate(low, high, offsets.float(), sampling)
    assert result.is_contiguous(memory_format=torch.channels_last)
    check(result, reference.aggregate(low, high, offsets, sampling), torch.float16)
    local, pooled, offsets = reference.maps(Shape(1, 24, (5, 7), (3, 3)), 2, "random", torch.float32)
    local = local.to(memory_format=torch.channels_last)
    result = launch.aligned_context(local, pooled, offsets, sampling)
    check(result, reference.context(local, pooled, offsets, sampling), torch.float32)


@pytest.mark.parametrize("layout", list(TACTICS))
def test_every_tactic_computes_the_same(layout: str) -> None:
    low, high, offsets = reference.maps(Shape(1, 8, (3, 5), (2, 3)), 4, "random", torch.float32)
    if layout == "channels_last":
        low = low.to(memory_format=torch.channels_last)
    expected = reference.aggregate(low, high, offsets, "standard")
    for tactic in TACTICS[layout]:
        check(launch.aligned_aggregate(low, high, offsets, "standard", tactic), expected, torch.float32)


@pytest.mark.parametrize(("last", "offsets_pixel"), [(False, 0), (True, 0), (True, 4), (True, 8)])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_in_tensorrts_formats_no_memory_beside_is_touched(sampling: str, last: bool, offsets_pixel: int) -> None:
    """LINEAR, HWC (offsets of 4) and HWC8 (offsets padded to 8); offsets that point far outside."""
    maps = reference.maps(Shape(2, 8, (9, 13), (5, 7)), 4, "huge", torch.float16)
    tactic = Tactic(4, 8, 16, 1)
    result = call_as_tensorrt.run("aligned_aggregate", maps, sampling, tactic, last=last, offsets_pixel=offsets_pixel)
    check(result, reference.aggregate(*maps, sampling), torch.float16)
    raster, other, offsets = reference.maps(Shape(2, 8, (9, 13), (3, 3)), 2, "borders", torch.float16)
    result = call_as_tensorrt.run(
        "aligned_context", (raster, other, offsets), sampling, tactic, last=last, offsets_pixel=offsets_pixel
    )
    check(result, reference.context(raster, other, offsets, sampling), torch.float16)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("small", "size"), [((1, 1), (1, 1)), ((1, 1), (3, 5)), ((5, 7), (17, 25)), ((4, 3), (13, 1)), ((6, 5), (6, 5))]
)
def test_upsample_argmax(small: tuple[int, int], size: tuple[int, int], last: bool) -> None:
    logits = 4 * torch.randn(2, 7, *small, generator=torch.Generator().manual_seed(1))
    if last:
        logits = logits.to(memory_format=torch.channels_last)
    full, probability = reference.argmax(logits, size)
    ids, confidence = launch.upsample_argmax(logits, size, confidence=True)
    assert (ids.shape, ids.dtype) == ((2, *size), torch.uint8)
    # The chosen class has the largest logit, up to rounding.
    chosen = full.gather(1, ids.long().unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(chosen, full.amax(dim=1), rtol=1e-5, atol=1e-5)
    assert confidence is not None
    assert (confidence.double() - 255 * probability).abs().max() <= 0.51
    assert torch.equal(launch.upsample_argmax(logits, size)[0], ids)


def test_of_equal_logits_the_first_class_is_chosen() -> None:
    ids, _ = launch.upsample_argmax(torch.zeros(1, 5, 2, 2), (4, 4))
    assert not ids.any()


def test_shapes_and_types_that_do_not_fit_are_rejected() -> None:
    low, high, offsets = reference.maps(Shape(1, 4, (4, 4), (2, 2)), 4, "zero", torch.float32)
    with pytest.raises(ValueError, match=r"expected maps of equal \(N, C\) and offsets \(1, 4, 4, 4\)"):
        launch.aligned_aggregate(low, high, offsets[:, :2], "standard")
    with pytest.raises(ValueError, match="expected maps of one type"):
        launch.aligned_aggregate(low, high.half(), offsets, "standard")
    with pytest.raises(ValueError, match="must not be larger"):
        launch.aligned_aggregate(high, low, offsets[..., :2, :2], "standard")
    with pytest.raises(ValueError, match="255 classes"):
        launch.upsample_argmax(torch.zeros(1, 256, 1, 1), (2, 2))
