"""The inlined model is read by other people's tools, with the same numbers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import version_converter
from onnxruntime.quantization import quantize_dynamic

from model_export.onnx_export import custom_ops
from model_export.onnx_export.inline import inline

IMAGES = np.random.default_rng(0).integers(0, 256, (1, 97, 129, 3), dtype=np.uint8)
Outputs = list[np.ndarray]


@pytest.fixture(scope="module")
def path(efficientnet_model: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inlined") / "model.inlined.onnx"
    onnx.save(inline(efficientnet_model), path)
    return path


@pytest.fixture(scope="module")
def expected(efficientnet_model: onnx.ModelProto) -> Outputs:
    return onnx_runtime(efficientnet_model)


def onnx_runtime(model: onnx.ModelProto) -> Outputs:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["class_map", "logits"], {"pictures": IMAGES})


def in_openvino(path: Path) -> Outputs:
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(IMAGES)
    return [results["class_map"], results["logits"]]


def in_opencv(path: Path) -> Outputs:
    cv2 = pytest.importorskip("cv2", minversion="5")
    network = cv2.dnn.readNetFromONNX(str(path))
    network.setInput(IMAGES)
    return [output.astype(np.float32) for output in network.forward(["class_map", "logits"])]


def in_version_converter(path: Path) -> Outputs:
    return onnx_runtime(version_converter.convert_version(onnx.load(path), 21))


@pytest.mark.parametrize("tool", [in_openvino, in_opencv, in_version_converter])
def test_another_tool_reads_it_with_the_same_numbers(
    tool: Callable[[Path], Outputs], path: Path, expected: Outputs
) -> None:
    class_map, logits = tool(path)
    assert (class_map == expected[0]).mean() > 0.999
    np.testing.assert_allclose(logits, expected[1], atol=1e-3 * np.abs(expected[1]).max())


def test_quantize_dynamic_reads_it(path: Path, tmp_path: Path) -> None:
    quantize_dynamic(path, tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * path.stat().st_size
    class_map, _ = onnx_runtime(onnx.load(tmp_path / "int8.onnx"))
    assert class_map.shape == IMAGES.shape[:3]


def test_it_has_plain_operators_and_float32_weights(path: Path, efficientnet_model: onnx.ModelProto) -> None:
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert not model.functions
    assert [entry.domain for entry in model.opset_import] == [""]
    assert {node.domain for node in model.graph.node} == {""}
    assert onnx.TensorProto.FLOAT16 not in {weight.data_type for weight in model.graph.initializer}
    assert efficientnet_model.functions  # the model itself is unchanged
    assert custom_ops.DOMAIN in {entry.domain for entry in efficientnet_model.opset_import}


def test_the_model_itself_is_not_read_by_these_tools(efficientnet_model: onnx.ModelProto, tmp_path: Path) -> None:
    """Otherwise this file would have no purpose."""
    onnx.save(efficientnet_model, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="to be an initializer"):
        quantize_dynamic(tmp_path / "model.onnx", tmp_path / "int8.onnx")
