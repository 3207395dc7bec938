"""The EfficientNet network and its ONNX, made once for all tests that only read them: an export takes half a minute."""

import numpy as np
import onnx
import pytest
import torch

from model_export.alignseg import AlignSeg
from model_export.onnx_export import exporter
from tests.model_export.frames import frames


@pytest.fixture(scope="session")
def efficientnet() -> AlignSeg:
    """Untrained, but with offsets of a few pixels, norms that fit the data, and weights that float16 holds."""
    torch.manual_seed(3)
    network = AlignSeg("efficientnet-lite0", 5, channels=16)
    for name, parameter in network.named_parameters():
        if name.endswith(("offsets.2.weight", "to_offsets.weight")):
            torch.nn.init.normal_(parameter, std=0.3)
        elif name.endswith("head.3.weight"):
            torch.nn.init.normal_(parameter, std=1.0)
    network.train()
    with torch.no_grad():
        for _ in range(10):
            network(network.normalise(torch.from_numpy(np.stack([frame[:96, :128] for frame in frames()]))))
    for parameter in network.parameters():  # no two tensors are the same, as in a trained network
        parameter.data = parameter.data + 0.1 * torch.rand_like(parameter) if parameter.ndim == 1 else parameter.data
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float() if parameter.ndim > 1 else parameter.data
    return network.eval()


@pytest.fixture(scope="session")
def efficientnet_model(efficientnet: AlignSeg) -> onnx.ModelProto:
    return exporter.to_onnx(efficientnet)
