"""Ranges of activations: right, of the right convolutions, and in the folder that asked for them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from model_export import checkpoint, export_onnx, int8_ranges, model_folder
from model_export.provenance import Provenance
from service import manifest as manifests
from service.engines import openvino_int8
from service.settings import REPOSITORY
from tests.model_export.frames import frames

FOLDER = REPOSITORY / "weights" / "alignseg-lite"
PICTURES = [np.ascontiguousarray(frame[:96, :128]) for frame in frames()[:2]]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(FOLDER / "model.onnx")


def test_they_are_what_the_network_computes(model: onnx.ModelProto) -> None:
    network = checkpoint.load(FOLDER / "model.safetensors")
    seen: list[torch.Tensor] = []
    network.head[0].register_forward_hook(lambda _module, inputs, _out: seen.append(inputs[0]))
    with torch.inference_mode():
        for picture in PICTURES:
            network(network.normalise(torch.from_numpy(picture)[None]))
    found = int8_ranges.measure(model, PICTURES)["head.0/Conv"]
    expected = min(float(x.min()) for x in seen), max(float(x.max()) for x in seen)
    assert found == pytest.approx(expected, abs=1e-3)


def test_positions_and_classes_stay_precise(model: onnx.ModelProto) -> None:
    every = {node.name for node in model.graph.node if node.op_type == "Conv"}
    chosen = {node.name for node in int8_ranges.convolutions(model)}
    left = every - chosen
    assert len(chosen) > 50
    assert {name.split("/")[0] for name in left} == {
        "backbone.stem.0.0", "head.3", "align_cm.pooled.0", "align_cm.pooled.2", "align_cm.context_offsets.2",
        *(f"align_fa.{n}.offsets.to_offsets" for n in (2, 3, 4, 5)),
    }  # fmt: skip
    with pytest.raises(ValueError, match="got none"):
        int8_ranges.measure(model, [])


def test_a_folder_has_them_when_asked(model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, shipped = checkpoint.load(FOLDER / "model.safetensors"), manifests.load(FOLDER)
    monkeypatch.setattr(export_onnx, "export", lambda _network, path, _frames: onnx.save(model, path))
    origin = Provenance(shipped.classes, trained_on="nothing", terms="none")
    folder = tmp_path / "m"

    def write(**more: object) -> manifests.Manifest:
        what = {"description": "a test", "model_version": "1", "half": True, **more}
        model_folder.write(folder, network, origin, [(96, 128)], frames(), **what)
        return manifests.load(folder)

    written = write(calibration=PICTURES)
    ranges = openvino_int8.load(manifests.verified_file(folder, written, "int8"))
    assert ranges == int8_ranges.measure(model, PICTURES)
    assert "int8" not in write().files
    names = ["model.json", "model.onnx", "model.safetensors", "self_test.npz"]
    assert sorted(path.name for path in folder.iterdir()) == names
