"""The rewritten network computes the same numbers as the original."""

import copy

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model_export.alignseg import AlignSeg
from model_export.onnx_export.merge_offset_generators import MergedGenerators, merge_generators
from tests.model_export.frames import frames
from tests.model_export.onnx_export.test_exporter import offset_network


@pytest.mark.parametrize("sampling", ["standard", "published"])
def test_merged_generators_give_the_same_logits(sampling: str) -> None:
    network = offset_network(sampling)
    rewritten = copy.deepcopy(network)
    merge_generators(rewritten)
    images = torch.from_numpy(np.stack([frame[:129, :193] for frame in frames()]))
    with torch.inference_mode():
        expected, actual = (n(n.normalise(images)) for n in (network, rewritten))
    assert float((actual - expected).abs().max()) < 1e-4 * max(1.0, float(expected.abs().max()))
    assert float((actual.argmax(1) == expected.argmax(1)).float().mean()) >= 0.9999


def test_merged_generators_only_rearrange_weights() -> None:
    network = AlignSeg("lite", 3, channels=16).eval()
    align_fa = network.align_fa["2"]
    merged = MergedGenerators([align_fa.high_offsets, align_fa.low_offsets], 16)
    before = torch.cat([p.flatten() for g in (align_fa.high_offsets, align_fa.low_offsets) for p in g.parameters()])
    after = torch.cat([p.flatten() for p in merged.parameters()])
    assert torch.equal(before.sort().values, after.sort().values)


def test_merged_generators_cost_less() -> None:
    network = AlignSeg("lite", 11).eval()
    x = torch.zeros(1, 3, 96, 128)

    def flops() -> int:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(x)
        return counter.get_total_flops()

    before = flops()
    merge_generators(network)
    assert flops() < 0.97 * before


def test_a_network_in_training_mode_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"call network\.eval\(\)"):
        merge_generators(AlignSeg("lite", 3, channels=8).train())
