"""What stands between a picture and the network, kept with the network so that no runtime can get it wrong."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """(x - mean) / std per channel, on pixels of 0..255, in `channel_order`; mean and std are in that order too."""

    channel_order: Literal["RGB", "BGR"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET_RGB = Preprocessing("RGB", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
# The released checkpoints' input (speedinghzl/AlignSeg, dataset/datasets.py).
PUBLISHED_BGR = Preprocessing("BGR", mean=(104.00698793, 116.66876762, 122.67891434), std=(1.0, 1.0, 1.0))


class Normalise(nn.Module):
    """uint8 (N, H, W, 3) RGB pictures -> float32 (N, 3, H, W) network input."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.channel_order = preprocessing.channel_order
        # Not persistent: a checkpoint tells its preprocessing in its metadata, so state dicts stay the network's own.
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """pictures: (N, H, W, 3) uint8 RGB. Returns (N, 3, H, W) of the buffers' dtype."""
        x = pictures.permute(0, 3, 1, 2).to(self.mean.dtype)
        if self.channel_order == "BGR":
            x = torch.cat((x[:, 2:3], x[:, 1:2], x[:, 0:1]), dim=1)
        return (x - self.mean) / self.std
