"""The operators: their schema, fake implementation, and a network that uses them."""

import pytest
import torch

from benchmarks.gpu import torch_ops
from model_export.alignseg import AlignSeg
from tests.model_export.kernels import reference
from tests.model_export.kernels.reference import SAMPLINGS, Shape


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_operators_match_their_schema_and_fake_implementation(sampling: str, last: bool) -> None:
    low, high, offsets = reference.maps(Shape(2, 4, (5, 6), (3, 3)), 4, "random", torch.float32)
    if last:
        low = low.to(memory_format=torch.channels_last)
    utils = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch_ops.aligned_aggregate, (low, high, offsets, sampling), test_utils=utils)
    torch.library.opcheck(torch_ops.aligned_context, (low, high, offsets[:, :2], sampling), test_utils=utils)
    torch.library.opcheck(torch_ops.upsample_argmax, (low, 9, 11), test_utils=utils)


def test_an_unknown_sampling_is_rejected() -> None:
    low, high, offsets = reference.maps(Shape(1, 4, (5, 6), (3, 3)), 4, "random", torch.float32)
    with pytest.raises(ValueError, match="expected 'standard' or 'published'"):
        torch_ops.aligned_aggregate(low, high, offsets, "other")


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_torch_compile_takes_the_operator_whole(sampling: str) -> None:
    low, high, offsets = reference.maps(Shape(1, 4, (5, 6), (3, 3)), 4, "random", torch.float32)
    module = torch_ops.FusedAggregate(torch_ops.aligned_aggregate, sampling)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    expected = reference.aggregate(low, high, offsets, sampling)
    torch.testing.assert_close(compiled(low, high, offsets).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_fused_network_computes_the_same_and_exports_as_one_graph(sampling: str) -> None:
    torch.manual_seed(0)
    network = AlignSeg("lite", 4, channels=8, sampling=sampling).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("offsets.2.weight"):
            torch.nn.init.normal_(parameter, std=0.3)
    image = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        expected = network(image)
        fused = torch_ops.fuse(network)
        torch.testing.assert_close(fused(image), expected)
    graph = torch.export.export(fused, (image,)).graph
    called = [str(node.target) for node in graph.nodes if "alignseg" in str(node.target)]
    assert sorted(called) == ["alignseg.aligned_aggregate.default"] * 4 + ["alignseg.aligned_context.default"]
