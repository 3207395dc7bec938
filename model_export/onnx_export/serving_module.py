"""The module that is exported: images in, class maps out, with preprocessing and argmax inside the graph."""

import torch
from torch import Tensor, nn

from model_export.alignseg import AlignSeg
from model_export.alignseg.sampling import upsample


class ServingModule(nn.Module):
    """Normalisation, network, upsampling with aligned corners (as in training), argmax."""

    def __init__(self, network: AlignSeg) -> None:
        super().__init__()
        if network.architecture.num_classes > 255:
            raise ValueError(
                f"the network has {network.architecture.num_classes} classes, expected at most 255 (uint8 class maps)"
            )
        self.network = network
        self.eval()

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """pictures: (N, H, W, 3) uint8 RGB.

        Returns the class map, (N, H, W) uint8, and the logits, (N, num_classes, ~H/4, ~W/4), before upsampling.
        """
        logits = self.network(self.network.normalise(pictures))
        full_size = upsample(logits, (pictures.shape[1], pictures.shape[2]))
        return full_size.argmax(dim=1).to(torch.uint8), logits
