"""SAME convolutions as one ONNX node each.

Traced, SameConv2d would be a Pad node whose sizes are computed from the shape, before a Conv. ONNX knows the same rule
by the attribute auto_pad=SAME_UPPER, which ONNX Runtime, OpenVINO and TensorRT apply at any size.
"""

import torch
from torch import Tensor, nn

from model_export.alignseg.same_padding import SameConv2d


class _SameConvNode(nn.Module):
    """Stands for a SameConv2d during the export and leaves one Conv node in the graph."""

    def __init__(self, conv: SameConv2d) -> None:
        super().__init__()
        self.weight = conv.weight
        self.stride = conv.stride[0]
        self.groups = conv.groups

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). The result has the shape that SameConv2d's has."""
        outputs, _, kernel, _ = self.weight.shape
        rows, columns = ((size + self.stride - 1) // self.stride for size in x.shape[2:])
        return torch.onnx.ops.symbolic(
            "Conv",
            (x, self.weight),
            {
                "auto_pad": "SAME_UPPER",
                "group": self.groups,
                "kernel_shape": [kernel, kernel],
                "strides": [self.stride, self.stride],
            },
            dtype=x.dtype,
            shape=(x.shape[0], outputs, rows, columns),
        )


def put_nodes_in_place(network: nn.Module) -> None:
    """Replace the SAME convolutions that have a stride of `network`, which can then be exported but not run.

    At stride 1 the padding is kernel // 2 on each side at every size, as an ordinary convolution's.
    """
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, SameConv2d):
                setattr(parent, name, _SameConvNode(child) if child.stride[0] > 1 else _plain(child))


def _plain(conv: SameConv2d) -> nn.Conv2d:
    """The same convolution, whose padding does not depend on the size."""
    kernel = conv.kernel_size[0]
    plain = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, padding=kernel // 2, groups=conv.groups, bias=False)
    plain.weight = conv.weight
    return plain
