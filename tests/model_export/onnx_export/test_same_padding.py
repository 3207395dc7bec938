"""The EfficientNet network as one portable ONNX: SAME convolutions are single nodes, right at every size."""

from pathlib import Path

import numpy as np
import onnx
import torch

from model_export.alignseg import AlignSeg
from model_export.onnx_export import custom_ops, parity
from model_export.onnx_export.serving_module import ServingModule
from service.engines.openvino.engine import OpenVinoEngine
from tests.model_export.frames import frames


def test_each_convolution_is_one_node(efficientnet_model: onnx.ModelProto) -> None:
    convolutions = {node.name.split("/")[0]: node for node in efficientnet_model.graph.node if node.op_type == "Conv"}
    same = {
        name
        for name, node in convolutions.items()
        if any(a.name == "auto_pad" and a.s == b"SAME_UPPER" for a in node.attribute)
    }
    assert same == {"backbone.stem.0", *(f"backbone.stages.{n}.0.depthwise.0" for n in (1, 2, 3, 5))}
    assert not any(node.op_type == "Pad" for node in efficientnet_model.graph.node)
    assert len([node for node in efficientnet_model.graph.node if node.domain == custom_ops.DOMAIN]) == 4


def test_numbers_agree_on_odd_and_even_sizes_and_batches(
    efficientnet: AlignSeg, efficientnet_model: onnx.ModelProto
) -> None:
    rows = parity.compare(ServingModule(efficientnet), parity.onnx_runtime(efficientnet_model), frames())
    assert all(row.within for row in rows), parity.table(rows)
    assert max(row.logits_scale for row in rows) > 0.3


def test_openvino_reads_it_at_any_size(
    efficientnet: AlignSeg, efficientnet_model: onnx.ModelProto, tmp_path: Path
) -> None:
    onnx.save(efficientnet_model, tmp_path / "model.onnx")
    engine = OpenVinoEngine(tmp_path / "model.onnx", threads=1)
    module = ServingModule(efficientnet)
    for height, width in ((96, 130), (97, 131), (113, 160)):
        image = np.ascontiguousarray(frames()[0][:height, :width])
        with torch.inference_mode():
            expected = module(torch.from_numpy(image)[None])[0][0].numpy()
        assert (engine.infer(image[None]).ids[0] == expected).mean() > 0.999
