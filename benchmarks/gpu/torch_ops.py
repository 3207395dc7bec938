"""The kernels as PyTorch operators for inference: on CUDA the Triton kernel, elsewhere the PyTorch reference.

They have fake implementations, so torch.compile and torch.export treat each as one node.
"""

import torch
from torch import Tensor, nn

from benchmarks.gpu import launch
from model_export.alignseg import AlignSeg
from model_export.alignseg.align_cm import AlignedContext
from model_export.alignseg.align_fa import AlignedAggregate
from model_export.alignseg.sampling import Sampling, upsample


@torch.library.custom_op("alignseg::aligned_aggregate", mutates_args=())
def aligned_aggregate(low: Tensor, high: Tensor, offsets: Tensor, sampling: str) -> Tensor:
    """See launch.aligned_aggregate. This body is the reference implementation for all other devices."""
    return _like(low, AlignedAggregate(_sampling(sampling))(low, high, offsets))


@torch.library.custom_op("alignseg::aligned_context", mutates_args=())
def aligned_context(local: Tensor, context: Tensor, offsets: Tensor, sampling: str) -> Tensor:
    """See launch.aligned_context."""
    return _like(local, AlignedContext(_sampling(sampling))(local, context, offsets))


@torch.library.custom_op("alignseg::upsample_argmax", mutates_args=())
def upsample_argmax(logits: Tensor, height: int, width: int) -> Tensor:
    """See launch.upsample_argmax: (N, K, h, w) logits -> (N, height, width) uint8 class ids."""
    return upsample(logits.float(), (height, width)).argmax(dim=1).to(torch.uint8)


@aligned_aggregate.register_kernel("cuda")
def _aggregate_cuda(low: Tensor, high: Tensor, offsets: Tensor, sampling: str) -> Tensor:
    return launch.aligned_aggregate(low, high, offsets, _sampling(sampling))


@aligned_context.register_kernel("cuda")
def _context_cuda(local: Tensor, context: Tensor, offsets: Tensor, sampling: str) -> Tensor:
    return launch.aligned_context(local, context, offsets, _sampling(sampling))


@upsample_argmax.register_kernel("cuda")
def _argmax_cuda(logits: Tensor, height: int, width: int) -> Tensor:
    return launch.upsample_argmax(logits, (height, width))[0]


@aligned_aggregate.register_fake
@aligned_context.register_fake
def _fake(raster: Tensor, other: Tensor, offsets: Tensor, sampling: str) -> Tensor:
    return _like(raster, torch.empty_like(raster))


@upsample_argmax.register_fake
def _argmax_fake(logits: Tensor, height: int, width: int) -> Tensor:
    return logits.new_empty((logits.shape[0], height, width), dtype=torch.uint8)


class FusedAggregate(nn.Module):
    """Replaces AlignedAggregate or AlignedContext."""

    def __init__(self, operator: "torch._library.custom_ops.CustomOpDef", sampling: Sampling) -> None:
        super().__init__()
        self.operator = operator
        self.sampling = sampling

    def forward(self, raster: Tensor, other: Tensor, offsets: Tensor) -> Tensor:
        """(N, C, H, W), (N, C, h, w), (N, 4 or 2, H, W) -> (N, C, H, W)."""
        out: Tensor = self.operator(raster, other, offsets, self.sampling)
        return out


def fuse(network: AlignSeg) -> AlignSeg:
    """Replace the network's aggregation modules, which have no weights, by the operators; in place."""
    sampling = network.architecture.sampling
    network.align_cm.aggregate = FusedAggregate(aligned_context, sampling)
    for align_fa in network.align_fa.values():
        align_fa.aggregate = FusedAggregate(aligned_aggregate, sampling)
    return network


def _sampling(name: str) -> Sampling:
    """The convention by name, since an operator's schema allows only strings."""
    known: dict[str, Sampling] = {"standard": "standard", "published": "published"}
    if name not in known:
        raise ValueError(f"sampling is {name!r}; expected 'standard' or 'published'")
    return known[name]


def _like(raster: Tensor, result: Tensor) -> Tensor:
    """The result in the memory format that the kernel writes, as the fake implementation promises."""
    last = launch.layout_of(raster) == "channels_last"
    return result.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
