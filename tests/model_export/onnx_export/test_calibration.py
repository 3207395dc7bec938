"""Ranges of activations: their values, their convolutions, and the file in the model folder."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from model_export.model_folder import writer
from model_export.model_folder.provenance import Provenance
from model_export.onnx_export import calibration, exporter
from model_export.tensorrt_build import graph
from model_export.tensorrt_build import quantization as tensorrt_quantization
from service.engines.openvino import quantization as openvino_quantization
from service.model_folder import manifest as manifests
from service.settings import REPOSITORY
from tests.model_export import shipped as shipped_model
from tests.model_export.frames import frames

FOLDER = REPOSITORY / "weights" / "alignseg-lite"
IMAGES = [np.ascontiguousarray(frame[:96, :128]) for frame in frames()[:2]]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(FOLDER / "model.onnx")


def test_ranges_are_those_of_the_networks_activations(model: onnx.ModelProto) -> None:
    network = shipped_model.network()
    activations: list[torch.Tensor] = []
    network.head[0].register_forward_hook(lambda _module, inputs, _out: activations.append(inputs[0]))
    with torch.inference_mode():
        for image in IMAGES:
            network(network.normalise(torch.from_numpy(image)[None]))
    ranges = calibration.measure(model, IMAGES)
    (measured,) = (ranges[name] for name in ("head.0/Conv", "head.0.0/Conv") if name in ranges)  # published, slim
    expected = min(float(x.min()) for x in activations), max(float(x.max()) for x in activations)
    assert measured == pytest.approx(expected, abs=1e-3)


STAYS_FLOAT = {
    False: {  # the published decoder
        "backbone.stem.0.0/Conv",
        "align_cm.pooled.0/Conv",
        "align_cm.pooled.2/Conv",
        "align_cm.context_offsets.2/Conv",
        *(f"align_fa.{n}.offsets.to_offsets/Conv" for n in (2, 3, 4, 5)),
        "head.3/Conv",
    },
    True: {  # the slim one, behind an EfficientNet
        "backbone.stem.0/Conv",
        "align_cm.pooled.0.0/Conv",
        "align_cm.pooled.1.0/Conv",
        "align_cm.context_offsets.2/Conv",
        *(f"align_fa.{n}.offsets.to_offsets/Conv" for n in (1, 2, 3)),
        "head.3/Conv",
    },
}


def convolution_names(model: onnx.ModelProto) -> set[str]:
    return {node.name for node in model.graph.node if node.op_type == "Conv"}


def depthwise(model: onnx.ModelProto) -> set[str]:
    """Names of the convolutions with one input channel a group and as many outputs."""
    shapes = {weight.name: weight.dims for weight in model.graph.initializer}
    for cast in model.graph.node:
        if cast.op_type == "Cast" and cast.input[0] in shapes:
            shapes[cast.output[0]] = shapes[cast.input[0]]
    return {node.name for node in model.graph.node if node.op_type == "Conv" and shapes[node.input[1]][1] == 1}


def stays_float(model: onnx.ModelProto, kind: tensorrt_quantization.EightBit = "int8") -> set[str]:
    """Names of the convolutions that are not quantised; in fp8 also depthwise ones, since it needs 16 channels."""
    slim = "align_fa.1.offsets.to_offsets/Conv" in convolution_names(model)
    return STAYS_FLOAT[slim] | (depthwise(model) if kind == "fp8" else set())


@pytest.fixture(params=["model", "efficientnet_model"])
def any_model(request: pytest.FixtureRequest) -> onnx.ModelProto:
    """The shipped model, and an untrained one with the slim decoder."""
    model: onnx.ModelProto = request.getfixturevalue(request.param)
    return model


def test_openvino_leaves_exactly_these_convolutions_in_float(any_model: onnx.ModelProto) -> None:
    chosen = [node.name for node in calibration.convolutions(any_model)]
    assert len(chosen) == len(set(chosen))
    assert convolution_names(any_model) - set(chosen) == stays_float(any_model)
    assert calibration.measure(any_model, IMAGES[:1]).keys() == set(chosen)


@pytest.mark.parametrize("warp", ["plugin", "gridsample"])
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_tensorrt_leaves_exactly_these_convolutions_in_float(
    any_model: onnx.ModelProto, kind: tensorrt_quantization.EightBit, warp: graph.Warp
) -> None:
    prepared = graph.prepare(any_model, kind, warp, IMAGES[:1])
    dequantised = {out for node in prepared.graph.node if node.op_type == "DequantizeLinear" for out in node.output}
    inputs = {node.name: set(node.input[:2]) for node in prepared.graph.node if node.op_type == "Conv"}
    assert inputs.keys() == convolution_names(any_model)
    expected = stays_float(any_model, kind)
    assert {name for name, values in inputs.items() if not values & dequantised} == expected
    assert {name for name, values in inputs.items() if not values <= dequantised} == expected  # both, or neither


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
    network, shipped = shipped_model.network(), manifests.load(FOLDER)
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
