"""Predictors: anything that turns a picture into a class map, so that one evaluation measures them all.

A predictor takes a picture, uint8 (H, W, 3) RGB, and returns class ids, uint8 (H, W), at the same size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from model_export.alignseg import AlignSeg
from training.losses import upsample

Bytes = NDArray[np.uint8]
Predictor = Callable[[Bytes], Bytes]


def with_network(network: AlignSeg, bf16: bool = False) -> Predictor:
    """The whole picture at once through PyTorch, on the device the network is on."""

    @torch.inference_mode()
    def predict(picture: Bytes) -> Bytes:
        network.eval()
        device = next(network.parameters()).device
        x = network.normalise(torch.tensor(picture)[None].to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = network(x)
        ids: Bytes = upsample(logits, picture.shape[:2])[0].argmax(0).to(torch.uint8).cpu().numpy()
        return ids

    return predict
