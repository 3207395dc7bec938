"""A network read back from its export is the same network; what can't be read back is an error that says why."""

from pathlib import Path

import onnx
import pytest
import torch

from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint
from model_export.checkpoints.checkpoint import CheckpointError
from model_export.model_folder import writer
from model_export.model_folder.provenance import Provenance
from model_export.onnx_export import exporter
from service.model_folder import manifest as manifests
from service.model_folder.manifest import ClassEntry
from tests.model_export.frames import frames
from training.evaluation.predictors import load_network

CLASSES = tuple(ClassEntry(name=f"class {i}", color=(i, i, i)) for i in range(5))


def test_a_folder_without_a_checkpoint(
    efficientnet: AlignSeg, efficientnet_model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "to_onnx", lambda _network: efficientnet_model)  # the same weights
    origin = Provenance(CLASSES, trained_on="nothing", terms="none")
    images = [frame[:96, :128] for frame in frames()]
    what = {"description": "", "model_version": "1", "half": True, "with_checkpoint": False}
    writer.write(tmp_path / "tiny", efficientnet, origin, [(96, 128)], images, **what)
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == ["model.json", "model.onnx", "self_test.npz"]
    assert "checkpoint" not in manifests.load(tmp_path / "tiny").files

    network = load_network(tmp_path / "tiny")
    assert network.aux_head is None
    expected = efficientnet.state_dict()
    for key, value in network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, expected[key]), key
    x = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), efficientnet(x))


def test_a_file_that_is_no_export(efficientnet_model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\xff\xff\xff\xff")
    with pytest.raises(CheckpointError, match="is not an ONNX file"):
        checkpoint.load(path)
    plain = onnx.ModelProto.FromString(efficientnet_model.SerializeToString())
    del plain.metadata_props[:]
    onnx.save(plain, path)
    with pytest.raises(CheckpointError, match=r"no alignseg\.architecture in its metadata"):
        checkpoint.load(path)


def test_a_weight_that_is_missing_is_named(efficientnet_model: onnx.ModelProto, tmp_path: Path) -> None:
    cut = onnx.ModelProto.FromString(efficientnet_model.SerializeToString())
    names = [weight.name for weight in cut.graph.initializer]
    del cut.graph.initializer[names.index("head.3.bias")]
    onnx.save(cut, tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match=r"1 missing:\n    head.3.bias"):
        checkpoint.load(tmp_path / "model.onnx")


def test_the_published_decoder_needs_its_checkpoint(tmp_path: Path) -> None:
    network, origin = AlignSeg("lite", 5, channels=8), Provenance(CLASSES, trained_on="nothing", terms="none")
    with pytest.raises(ValueError, match="the export of a lite contains merged weights"):
        writer.write(
            tmp_path / "tiny",
            network,
            origin,
            [(96, 128)],
            frames(),
            description="",
            model_version="1",
            with_checkpoint=False,
        )
    assert list(tmp_path.iterdir()) == []
