"""A network with the fused operators on the GPU, eager and compiled, against the original network."""

import pytest
import torch

from benchmarks.gpu import torch_ops
from model_export.alignseg import AlignSeg
from tests.model_export import shipped


@pytest.fixture
def network(gpu: torch.device) -> AlignSeg:
    return shipped.network().eval().to(gpu)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("compiled", [False, True])
@torch.inference_mode()
def test_fused_network(gpu: torch.device, network: AlignSeg, dtype: torch.dtype, compiled: bool) -> None:
    torch.backends.cudnn.allow_tf32 = False
    image = torch.randn(2, 3, 360, 480, device=gpu)
    expected = network(image)
    fused = torch_ops.fuse(network).to(dtype).to(memory_format=torch.channels_last)
    run = torch.compile(fused, fullgraph=True) if compiled else fused
    logits = run(image.to(dtype).to(memory_format=torch.channels_last)).float()
    if dtype == torch.float32:
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    assert (logits.argmax(dim=1) == expected.argmax(dim=1)).float().mean() > 0.99


@torch.inference_mode()
def test_argmax_operator(gpu: torch.device) -> None:
    logits = torch.randn(1, 11, 90, 120, device=gpu)
    on_cpu = torch_ops.upsample_argmax(logits.cpu(), 360, 480)
    assert (torch_ops.upsample_argmax(logits, 360, 480).cpu() == on_cpu).float().mean() > 0.9999
