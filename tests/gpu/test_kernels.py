"""The kernels on the GPU against float64 PyTorch: the CPU tests' inputs, and the sizes that are served."""

import itertools

import pytest
import torch

from benchmarks.gpu import launch
from model_export.kernels.tactics import TACTICS, Layout
from tests.model_export.kernels import call_as_tensorrt, reference
from tests.model_export.kernels.reference import SAMPLINGS, Shape

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SERVED = (Shape(2, 64, (93, 121), (12, 16)), Shape(1, 256, (128, 256), (64, 128)), Shape(3, 128, (91, 121), (46, 61)))


def check(result: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    rtol, atol = reference.TOLERANCES[dtype]
    torch.testing.assert_close(result.double().cpu(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_aggregate_and_context(gpu: torch.device, dtype: torch.dtype, sampling: str, last: bool) -> None:
    memory_format = torch.channels_last if last else torch.contiguous_format
    for shape, kind in itertools.product(reference.SHAPES + SERVED, reference.OFFSETS):
        low, high, offsets = reference.maps(shape, 4, kind, dtype)
        on_gpu = [x.to(gpu).contiguous(memory_format=memory_format) for x in (low, high)]
        check(
            launch.aligned_aggregate(*on_gpu, offsets.to(gpu), sampling),
            reference.aggregate(low, high, offsets, sampling), dtype,
        )  # fmt: skip
        offsets = offsets[:, :2].contiguous()
        check(
            launch.aligned_context(*on_gpu, offsets.to(gpu), sampling),
            reference.context(low, high, offsets, sampling), dtype,
        )  # fmt: skip


@pytest.mark.parametrize("layout", list(TACTICS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tactic(gpu: torch.device, layout: str, dtype: torch.dtype) -> None:
    low, high, offsets = reference.maps(Shape(2, 96, (45, 61), (23, 31)), 4, "random", dtype)
    on_gpu = [x.to(gpu) for x in (low, high, offsets)]
    if layout == "channels_last":
        on_gpu[0] = on_gpu[0].to(memory_format=torch.channels_last)
    expected = reference.aggregate(low, high, offsets, "standard")
    for tactic in TACTICS[layout]:
        check(launch.aligned_aggregate(*on_gpu, "standard", tactic), expected, dtype)


@pytest.mark.parametrize("last", [False, True])
def test_upsample_argmax(gpu: torch.device, last: bool) -> None:
    logits = 4 * torch.randn(2, 19, 64, 128, generator=torch.Generator().manual_seed(1))
    full, probability = reference.argmax(logits, (256, 512))
    on_gpu = logits.to(gpu).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    ids, confidence = launch.upsample_argmax(on_gpu, (256, 512), confidence=True)
    chosen = full.gather(1, ids.cpu().long().unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(chosen, full.amax(dim=1), rtol=1e-5, atol=1e-5)
    assert confidence is not None
    assert (confidence.cpu().double() - 255 * probability).abs().max() <= 0.52


@pytest.mark.parametrize(("layout", "offsets_pixel"), [("planar", 0), ("channels_last", 0), ("channels_last", 8)])
@pytest.mark.parametrize("kind", ["huge", "borders"])
def test_in_tensorrts_formats_no_memory_beside_is_touched(
    gpu: torch.device, kind: str, layout: Layout, offsets_pixel: int
) -> None:
    maps = reference.maps(Shape(2, 64, (45, 61), (23, 31)), 4, kind, torch.float16)
    on_gpu = (maps[0].to(gpu), maps[1].to(gpu), maps[2].to(gpu))
    for tactic in TACTICS[layout]:
        result = call_as_tensorrt.run(
            "aligned_aggregate", on_gpu, "standard", tactic,
            last=layout == "channels_last", offsets_pixel=offsets_pixel,
        )  # fmt: skip
        check(result, reference.aggregate(*maps, "standard"), torch.float16)


def test_a_batch_beyond_two_to_the_31_elements(gpu: torch.device) -> None:
    count, shape = 65, Shape(1, 256, (256, 512), (128, 256))  # 65 * 256 * 256 * 512 = 2.2e9
    if torch.cuda.mem_get_info()[0] < 16 * 2**30:
        pytest.skip("needs 16 GB of GPU memory")
    low, high, offsets = (
        x.to(gpu).expand(count, -1, -1, -1).contiguous() for x in reference.maps(shape, 4, "random", torch.float16)
    )
    every = launch.aligned_aggregate(low, high, offsets, "standard")
    first, last = every[:1].cpu(), every[-1:].cpu()
    check(first, reference.aggregate(low[:1].cpu(), high[:1].cpu(), offsets[:1].cpu(), "standard"), torch.float16)
    assert torch.equal(first, last)
