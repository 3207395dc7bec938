"""Convolution with the padding that TensorFlow calls SAME, which weights trained there expect."""

import torch.nn.functional as F
from torch import Tensor, nn


class SameConv2d(nn.Conv2d):
    """Square convolution whose output has ceil(size / stride) rows and columns, without bias.

    Of the zeros that this takes, the first half, rounded down, goes before the image and the rest after it. At stride 2
    an odd size gets kernel // 2 on both sides, an even one gets one less before. Exports to one ONNX Conv node with
    auto_pad=SAME_UPPER (see onnx_export/same_padding.py), which is the same for every size.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, H, W). Returns (N, outputs, ceil(H / stride), ceil(W / stride))."""
        rows, columns = (_padding(size, self.kernel_size[0], self.stride[0]) for size in x.shape[2:])
        if rows[0] == rows[1] == columns[0] == columns[1] == self.padding[0]:
            return super().forward(x)  # the usual case, without a padded copy
        padded = F.pad(x, (*columns, *rows))
        return F.conv2d(padded, self.weight, None, self.stride, 0, 1, self.groups)


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis of `size`."""
    steps = -(-size // stride) - 1
    total = max(0, steps * stride + kernel - size)
    return total // 2, total - total // 2
