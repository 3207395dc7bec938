"""The EfficientNet network as one portable ONNX: SAME convolutions are single nodes, right at every size."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from model_export import export_onnx, functions, parity
from model_export.alignseg import AlignSeg
from service.engines.openvino import OpenVinoEngine
from tests.model_export.frames import frames


@pytest.fixture(scope="module")
def network() -> AlignSeg:
    """Untrained, but with offsets of a few pixels and norms that fit the data."""
    torch.manual_seed(3)
    network = AlignSeg("efficientnet-lite0", 5, channels=16)
    for name, parameter in network.named_parameters():
        if name.endswith(("offsets.2.weight", "to_offsets.weight")):
            torch.nn.init.normal_(parameter, std=0.3)
        elif name.endswith("head.3.weight"):
            torch.nn.init.normal_(parameter, std=1.0)
    network.train()
    for _ in range(10):
        network(network.normalise(torch.from_numpy(np.stack([frame[:192, :256] for frame in frames()]))))
    return network.eval()


@pytest.fixture(scope="module")
def model(network: AlignSeg) -> onnx.ModelProto:
    return export_onnx.to_onnx(network)


def test_each_convolution_is_one_node(model: onnx.ModelProto) -> None:
    convolutions = {node.name.split("/")[0]: node for node in model.graph.node if node.op_type == "Conv"}
    same = {
        name
        for name, node in convolutions.items()
        if any(a.name == "auto_pad" and a.s == b"SAME_UPPER" for a in node.attribute)
    }
    assert same == {"backbone.stem.0", *(f"backbone.stages.{n}.0.depthwise.0" for n in (1, 2, 3, 5))}
    assert not any(node.op_type == "Pad" for node in model.graph.node)
    assert len([node for node in model.graph.node if node.domain == functions.DOMAIN]) == 4


def test_numbers_agree_on_odd_and_even_sizes_and_batches(network: AlignSeg, model: onnx.ModelProto) -> None:
    rows = parity.compare(export_onnx.ServingModule(network), parity.onnx_runtime(model), frames())
    assert all(row.within for row in rows), parity.table(rows)
    assert max(row.logits_scale for row in rows) > 0.3


def test_openvino_reads_it_at_any_size(network: AlignSeg, model: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "model.onnx")
    engine = OpenVinoEngine(tmp_path / "model.onnx", threads=1)
    module = export_onnx.ServingModule(network)
    for height, width in ((96, 130), (97, 131), (113, 160)):
        image = np.ascontiguousarray(frames()[0][:height, :width])
        with torch.inference_mode():
            expected = module(torch.from_numpy(image)[None])[0][0].numpy()
        assert (engine.infer(image[None]).ids[0] == expected).mean() > 0.999
