"""The kernels on the GPU against float64 PyTorch: the CPU tests' inputs, and the sizes that are served."""

import pytest
import torch

from model_export.plugins import launch
from model_export.plugins.tactics import TACTICS
from tests.model_export.plugins import reference
from tests.model_export.plugins.reference import SAMPLINGS, Shape

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SERVED = (Shape(2, 64, (90, 120), (12, 15)), Shape(1, 256, (128, 256), (64, 128)), Shape(3, 128, (91, 121), (46, 61)))


def check(result: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    rtol, atol = reference.TOLERANCES[dtype]
    torch.testing.assert_close(result.double().cpu(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_aggregate_and_context(gpu: torch.device, dtype: torch.dtype, sampling: str, last: bool) -> None:
    memory_format = torch.channels_last if last else torch.contiguous_format
    for shape, kind, _ in reference.cases(reference.SHAPES + SERVED):
        low, high, moves = reference.maps(shape, 4, kind, dtype)
        on_gpu = [x.to(gpu).contiguous(memory_format=memory_format) for x in (low, high)]
        check(
            launch.aligned_aggregate(*on_gpu, moves.to(gpu), sampling),
            reference.aggregate(low, high, moves, sampling), dtype,
        )  # fmt: skip
        moves = moves[:, :2].contiguous()
        check(
            launch.aligned_context(*on_gpu, moves.to(gpu), sampling),
            reference.context(low, high, moves, sampling), dtype,
        )  # fmt: skip


@pytest.mark.parametrize("layout", list(TACTICS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tactic(gpu: torch.device, layout: str, dtype: torch.dtype) -> None:
    low, high, moves = reference.maps(Shape(2, 96, (45, 61), (23, 31)), 4, "random", dtype)
    on_gpu = [x.to(gpu) for x in (low, high, moves)]
    if layout == "channels_last":
        on_gpu[0] = on_gpu[0].to(memory_format=torch.channels_last)
    expected = reference.aggregate(low, high, moves, "standard")
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


def test_nothing_is_written_beside_the_result(gpu: torch.device) -> None:
    low, high, moves = (x.to(gpu) for x in reference.maps(Shape(1, 5, (7, 11), (4, 6)), 4, "huge", torch.float32))
    around = torch.full((3, *low.shape), 7.0, device=gpu)
    launch.aligned_aggregate(low, high, moves, "standard")
    torch.cuda.synchronize()
    assert (around == 7).all()
