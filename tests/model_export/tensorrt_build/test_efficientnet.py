"""The EfficientNet network through the whole export: a model folder, then an engine of TensorRT for RTX from it."""

from pathlib import Path

import onnx
import pytest
import torch

from model_export import build_engine, model_folder, trt_graph, trt_library
from model_export.alignseg import AlignSeg
from model_export.provenance import Provenance
from model_export.trt_library import NoTensorRTError
from service.manifest import ClassEntry
from tests.model_export.frames import frames

CLASSES = tuple(ClassEntry(name=f"class {i}", color=(i, i, i)) for i in range(5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    network = AlignSeg("efficientnet-lite0", 5, channels=16)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as trained ones: not all the same
            torch.nn.init.uniform_(module.weight, 0.8, 1.2)
    origin = Provenance(CLASSES, trained_on="nothing", terms="none")
    folder = tmp_path_factory.mktemp("models") / "tiny"
    images = [frame[:96, :128] for frame in frames()]
    model_folder.write(
        folder, network.eval(), origin, [(96, 128)], images, description="", model_version="1", half=True
    )
    return folder


def test_builds_a_real_engine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        trt_library.load("tensorrt_rtx")
    except NoTensorRTError as error:
        pytest.skip(str(error))
    arguments = ["--runtime", "tensorrt_rtx", "--arch", "89", "--bucket", "96x128", "--batch", "1"]
    assert build_engine.main([str(folder), *arguments]) == 0
    assert "7 gridsample layers, as many as the model has; sampling is linear" in capsys.readouterr().out
    (plan,) = (folder / "engines").glob("*.plan")
    assert plan.stat().st_size > 1_000_000


def test_every_aggregation_becomes_a_plugin(folder: Path) -> None:
    prepared = trt_graph.prepare(onnx.load(folder / "model.onnx"), "fp16", "plugin")
    assert len([node for node in prepared.graph.node if node.domain == "alignseg"]) == 4
    assert "BatchNormalization" not in {node.op_type for node in prepared.graph.node}
