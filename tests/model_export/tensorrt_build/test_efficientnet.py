"""The EfficientNet network as a model folder, and an engine of TensorRT for RTX from it."""

from pathlib import Path

import onnx
import pytest

from model_export import build_engine
from model_export.alignseg import AlignSeg
from model_export.model_folder import writer
from model_export.model_folder.provenance import Provenance
from model_export.onnx_export import exporter
from model_export.tensorrt_build import graph, library
from model_export.tensorrt_build.library import NoTensorRTError
from model_export.tensorrt_build.precision import Precision
from model_export.tensorrt_build.quantization import EightBit
from service.model_folder.manifest import ClassEntry
from service.web import SCENE
from tests.model_export.frames import frames

CLASSES = tuple(ClassEntry(name=f"class {i}", color=(i, i, i)) for i in range(5))


@pytest.fixture
def folder(
    efficientnet: AlignSeg, efficientnet_model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setattr(exporter, "to_onnx", lambda _network: efficientnet_model)  # the same weights
    origin = Provenance(CLASSES, trained_on="nothing", terms="none")
    images = [frame[:96, :128] for frame in frames()]
    writer.write(
        tmp_path / "tiny", efficientnet, origin, [(96, 128)], images, description="", model_version="1", half=True
    )
    return tmp_path / "tiny"


@pytest.mark.parametrize("precision", ["fp16", "int8"])  # strongly typed; both with depthwise convolutions and ReLU6
def test_builds_a_real_engine(folder: Path, precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        library.load("tensorrt_rtx")
    except NoTensorRTError as error:
        pytest.skip(str(error))
    arguments = ["--runtime", "tensorrt_rtx", "--arch", "89", "--bucket", "96x128", "--batch", "1"]
    arguments += ["--precision", precision]
    if precision == "int8":
        arguments += ["--calibration", str(SCENE.parent)]
    assert build_engine.main([str(folder), *arguments]) == 0
    assert "7 gridsample layers, as in the model; sampling is linear" in capsys.readouterr().out
    (plan,) = (folder / "engines").glob("*.plan")
    assert plan.stat().st_size > 1_000_000


@pytest.mark.parametrize("precision", ["fp16", "int8", "fp8"])
def test_every_aggregation_becomes_a_plugin(
    efficientnet_model: onnx.ModelProto, precision: Precision | EightBit
) -> None:
    prepared = graph.prepare(efficientnet_model, precision, "plugin", [frame[:96, :128] for frame in frames()[:1]])
    assert len([node for node in prepared.graph.node if node.domain == "alignseg"]) == 4
    assert "BatchNormalization" not in {node.op_type for node in prepared.graph.node}
