"""Pictures in, class maps out: all between is inside, so that no runtime can get the preprocessing wrong."""

import torch
from torch import Tensor, nn

from model_export.alignseg import AlignSeg
from model_export.alignseg.sampling import upsample


class ServingModule(nn.Module):
    """Normalisation, network, upsampling with aligned corners (as in training), argmax."""

    def __init__(self, network: AlignSeg) -> None:
        super().__init__()
        if network.architecture.num_classes > 255:
            raise ValueError(f"a uint8 class map holds 255 classes, the network has {network.architecture.num_classes}")
        self.network = network
        self.eval()

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """pictures: (N, H, W, 3) uint8 RGB.

        Returns the class map, (N, H, W) uint8, and the logits it came from, (N, num_classes, ~H/4, ~W/4).
        """
        logits = self.network(self.network.normalise(pictures))
        full_size = upsample(logits, (pictures.shape[1], pictures.shape[2]))
        return full_size.argmax(dim=1).to(torch.uint8), logits
