"""Ranges of activations: their values, their convolutions, and the file in the model folder."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from model_export.checkpoints import checkpoint
from model_export.model_folder import writer
from model_export.model_folder.provenance import Provenance
from model_export.onnx_export import calibration, exporter
from model_export.tensorrt_build import graph
from model_export.tensorrt_build import quantization as tensorrt_quantization
from service.engines.openvino import quantization as openvino_quantization
from service.model_folder import manifest as manifests
from service.settings import REPOSITORY
from tests.model_export.frames import frames

FOLDER = REPOSITORY / "weights" / "alignseg-lite"
IMAGES = [np.ascontiguousarray(frame[:96, :128]) for frame in frames()[:2]]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(FOLDER / "model.onnx")


def test_ranges_are_those_of_the_networks_activations(model: onnx.ModelProto) -> None:
    network = checkpoint.load(FOLDER / "model.safetensors")
    activations: list[torch.Tensor] = []
    network.head[0].register_forward_hook(lambda _module, inputs, _out: activations.append(inputs[0]))
    with torch.inference_mode():
        for image in IMAGES:
            network(network.normalise(torch.from_numpy(image)[None]))
    measured = calibration.measure(model, IMAGES)["head.0/Conv"]
    expected = min(float(x.min()) for x in activations), max(float(x.max()) for x in activations)
    assert measured == pytest.approx(expected, abs=1e-3)


STAYS_FLOAT = {
    "backbone.stem.0.0/Conv",
    "align_cm.pooled.0/Conv",
    "align_cm.pooled.2/Conv",
    "align_cm.context_offsets.2/Conv",
    "align_fa.2.offsets.to_offsets/Conv",
    "align_fa.3.offsets.to_offsets/Conv",
    "align_fa.4.offsets.to_offsets/Conv",
    "align_fa.5.offsets.to_offsets/Conv",
    "head.3/Conv",
}


def convolution_names(model: onnx.ModelProto) -> set[str]:
    return {node.name for node in model.graph.node if node.op_type == "Conv"}


def test_openvino_leaves_exactly_these_convolutions_in_float(model: onnx.ModelProto) -> None:
    chosen = [node.name for node in calibration.convolutions(model)]
    assert len(chosen) == 61
    assert convolution_names(model) - set(chosen) == STAYS_FLOAT
    assert calibration.measure(model, IMAGES[:1]).keys() == set(chosen)


@pytest.mark.parametrize("warp", ["plugin", "gridsample"])
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_tensorrt_leaves_exactly_these_convolutions_in_float(
    model: onnx.ModelProto, kind: tensorrt_quantization.EightBit, warp: graph.Warp
) -> None:
    prepared = graph.prepare(model, kind, warp, IMAGES[:1])
    dequantised = {out for node in prepared.graph.node if node.op_type == "DequantizeLinear" for out in node.output}
    inputs = {node.name: set(node.input[:2]) for node in prepared.graph.node if node.op_type == "Conv"}
    assert inputs.keys() == convolution_names(model)
    assert {name for name, values in inputs.items() if not values & dequantised} == STAYS_FLOAT
    assert {name for name, values in inputs.items() if not values <= dequantised} == STAYS_FLOAT  # both, or neither


@pytest.mark.parametrize("kernel", [(16, 8, 3, 3), (8, 16, 3, 3), (16, 16, 3, 3)])
@pytest.mark.parametrize("stored_in_half", [False, True])
def test_fp8_leaves_convolutions_of_fewer_than_16_channels_in_float(
    kernel: tuple[int, ...], stored_in_half: bool
) -> None:
    weights = numpy_helper.from_array(np.zeros(kernel, np.float16 if stored_in_half else np.float32), "stored")
    nodes = [helper.make_node("Conv", ["x", "w" if stored_in_half else "stored"], ["y"], name="body/Conv")]
    if stored_in_half:
        nodes.insert(0, helper.make_node("Cast", ["stored"], ["w"], to=TensorProto.FLOAT))
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], [weights]))
    assert [node.name for node in tensorrt_quantization.convolutions(model, "int8")] == ["body/Conv"]
    assert bool(tensorrt_quantization.convolutions(model, "fp8")) is (min(kernel[:2]) == 16)


def test_ranges_need_images(model: onnx.ModelProto) -> None:
    with pytest.raises(ValueError, match="got no images"):
        calibration.measure(model, [])


def test_the_model_folder_has_ranges_only_with_calibration_images(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, shipped = checkpoint.load(FOLDER / "model.safetensors"), manifests.load(FOLDER)
    monkeypatch.setattr(exporter, "export", lambda _network, path, _frames: onnx.save(model, path))
    origin = Provenance(shipped.classes, trained_on="nothing", terms="none")
    folder = tmp_path / "m"

    def write(**more: object) -> manifests.Manifest:
        what = {"description": "a test", "model_version": "1", "half": True, **more}
        writer.write(folder, network, origin, [(96, 128)], frames(), **what)
        return manifests.load(folder)

    written = write(calibration=IMAGES)
    ranges = openvino_quantization.load(manifests.verified_file(folder, written, "int8"))
    assert ranges == calibration.measure(model, IMAGES)
    assert "int8" not in write().files
    names = ["model.json", "model.onnx", "model.safetensors", "self_test.npz"]
    assert sorted(path.name for path in folder.iterdir()) == names
