"""The exported ONNX: its graph, its numbers, and that nothing is written when they differ from PyTorch's."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint
from model_export.model_folder import writer
from model_export.model_folder.provenance import Provenance
from model_export.onnx_export import custom_ops, exporter, parity
from model_export.onnx_export.parity import ParityError
from service.model_folder import manifest
from service.model_folder.manifest import ClassEntry
from service.types import UInt8Array
from tests.model_export.frames import frames

CAMVID = Path(__file__).parents[4] / "shared" / "camvid" / "val" / "images"
PROVENANCE = Provenance(
    tuple(ClassEntry(name=f"class {i}", color=(i, i, i)) for i in range(5)), trained_on="nothing", terms="none"
)


def offset_network(sampling: str) -> AlignSeg:
    """Untrained, but with offsets of a few pixels and logits of some size, so that a wrong warp changes the output."""
    torch.manual_seed(3)
    network = AlignSeg("lite", 5, channels=16, sampling=sampling)
    for name, parameter in network.named_parameters():
        if name.endswith("offsets.2.weight"):
            torch.nn.init.normal_(parameter, std=0.3)
        elif name.endswith("head.3.weight"):
            torch.nn.init.normal_(parameter, std=1.0)
    network.train()
    for _ in range(10):  # norms that fit the data
        network(network.normalise(torch.from_numpy(np.stack([f[:192, :256] for f in frames()]))))
    for parameter in network.parameters():  # as loaded from a checkpoint saved with half=True
        parameter.data = parameter.data.half().float() if parameter.ndim > 1 else parameter.data
    return network.eval()


@pytest.fixture(scope="module", params=["standard", "published"])
def network(request: pytest.FixtureRequest) -> AlignSeg:
    return offset_network(request.param)


@pytest.fixture(scope="module")
def model(network: AlignSeg) -> onnx.ModelProto:
    return exporter.to_onnx(network)


def test_interface_and_domain(model: onnx.ModelProto) -> None:
    (image_input,) = model.graph.input
    class_map, logits = model.graph.output
    assert (image_input.name, class_map.name, logits.name) == ("pictures", "class_map", "logits")
    dims = [dim.dim_param or dim.dim_value for dim in image_input.type.tensor_type.shape.dim]
    assert dims == ["N", "H", "W", 3]
    assert class_map.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [dim.dim_param for dim in class_map.type.tensor_type.shape.dim] == ["N", "H", "W"]
    assert 16 <= next(entry.version for entry in model.opset_import if not entry.domain) <= 19


def test_each_aggregation_is_one_node_with_a_body(model: onnx.ModelProto) -> None:
    nodes = [node for node in model.graph.node if node.domain == custom_ops.DOMAIN]
    assert sorted(node.name for node in nodes) == [
        "align_cm.aggregate/AlignedContext",
        *(f"align_fa.{n}.aggregate/AlignedAggregate" for n in (2, 3, 4, 5)),
    ]
    assert {function.name for function in model.functions} == {"AlignedAggregate", "AlignedContext"}
    assert not any(node.op_type == "GridSample" for node in model.graph.node)
    assert {node.op_type for node in model.functions[0].node} >= {"Resize", "GridSample", "Add"}


def test_nodes_are_named_after_their_module(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        owner = node.name.split("/")[0].split(".")[0]
        assert owner in {
            "backbone",
            "align_cm",
            "align_fa",
            "refine_a",
            "refine_b",
            "head",
            "normalise",
            "serving",
            "shape",
        }
    assert "backbone.stem.0.0.weight.half" in {weight.name for weight in model.graph.initializer}


def test_numbers_agree_on_odd_sizes_and_batches(network: AlignSeg, model: onnx.ModelProto) -> None:
    module = exporter.ServingModule(network)
    rows = parity.compare(module, parity.onnx_runtime(model), frames())
    assert all(row.within for row in rows), parity.table(rows)
    assert max(row.logits_scale for row in rows) > 0.3


@pytest.mark.skipif(not CAMVID.is_dir(), reason="real frames are in ../shared/camvid, which outside users do not have")
def test_numbers_agree_on_real_frames(network: AlignSeg, model: onnx.ModelProto) -> None:
    real = [parity.read_image(path) for path in sorted(CAMVID.glob("*.jpg"))[:3]]
    rows = parity.compare(exporter.ServingModule(network), parity.onnx_runtime(model), real)
    assert all(row.within for row in rows), parity.table(rows)


def test_a_difference_is_an_error_with_the_table_and_no_file(
    network: AlignSeg, model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = onnx.ModelProto.FromString(model.SerializeToString())
    other = "published" if network.architecture.sampling == "standard" else "standard"
    del wrong.functions[:]
    custom_ops.attach_bodies(wrong, other)
    monkeypatch.setattr(exporter, "to_onnx", lambda _network: wrong)
    with pytest.raises(ParityError, match=r"FAILED"):
        exporter.export(network, tmp_path / "model.onnx", frames())
    assert list(tmp_path.iterdir()) == []


def test_the_model_folder_contains_the_files_of_its_manifest(
    network: AlignSeg, model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tiny"
    monkeypatch.setattr(exporter, "to_onnx", lambda _network: model)  # the same weights; saves half a minute
    options = {"description": "a test", "model_version": "1", "half": True}
    writer.write(folder, network, PROVENANCE, [(96, 128)], frames(), **options, with_inlined=True)
    assert manifest.verified_file(folder, manifest.load(folder), "inlined").name == "model.inlined.onnx"
    writer.write(folder, network, PROVENANCE, [(96, 128)], frames(), **options)  # removes what it does not write
    loaded = manifest.load(folder)
    files = ["model.json", "model.onnx", "model.safetensors", "self_test.npz"]
    assert sorted(path.name for path in folder.iterdir()) == files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]
    for role in ("onnx", "checkpoint", "self_test"):
        assert manifest.verified_file(folder, loaded, role).is_file()
    assert loaded.architecture.sampling == network.architecture.sampling
    weights = sum(value.numel() for value in checkpoint.load(folder / "model.safetensors").state_dict().values())
    assert (folder / "model.onnx").stat().st_size < 2.6 * weights  # float16, not float32


def test_the_old_model_folder_stays_when_the_export_differs(
    network: AlignSeg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.json").write_text("the old one")

    def differ(*_: object) -> list[parity.Row]:
        raise ParityError("a table")

    monkeypatch.setattr(exporter, "export", differ)
    with pytest.raises(ParityError):
        writer.write(tmp_path / "tiny", network, PROVENANCE, [(96, 128)], frames(), description="", model_version="1")
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["model.json"]
    assert (tmp_path / "tiny" / "model.json").read_text() == "the old one"
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_the_comparison_needs_images(network: AlignSeg) -> None:
    def never(_: UInt8Array) -> parity.Outputs:
        raise AssertionError

    with pytest.raises(ValueError, match="got no images"):
        parity.compare(exporter.ServingModule(network), never, [])
