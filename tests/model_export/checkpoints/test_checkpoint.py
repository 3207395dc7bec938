"""Checkpoints load only when every key fits."""

import json
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint, published_weights
from model_export.checkpoints.checkpoint import CheckpointError
from tests.model_export.checkpoints.published_state import published_state

State = dict[str, torch.Tensor]


def small_published_state(**changes: object) -> State:
    """A published ResNet-50 state dict, made from this project's network by its published names."""
    network = AlignSeg("resnet50", 5, channels=8, sampling="published")
    return {published_weights.name_of(key): value for key, value in network.state_dict().items()} | changes  # type: ignore[operator]


def save(state: object, folder: Path) -> Path:
    path = folder / "weights.pth"
    torch.save(state, path)
    return path


def assert_same(left: AlignSeg, right: AlignSeg) -> None:
    for key, value in left.state_dict().items():
        assert torch.equal(value, right.state_dict()[key]), key


@pytest.mark.parametrize("aux_head", [True, False])
def test_own_safetensors_round_trip(tmp_path: Path, aux_head: bool) -> None:
    network = AlignSeg("lite", 3, channels=8, sampling="published", aux_head=aux_head)
    checkpoint.save(tmp_path / "a.safetensors", network, metadata={"note": "hello"})
    loaded = checkpoint.load(tmp_path / "a.safetensors")
    assert loaded.architecture == network.architecture
    assert not loaded.training
    assert_same(network, loaded)
    assert checkpoint.read_metadata(tmp_path / "a.safetensors")["note"] == "hello"
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_checkpoints_written_before_the_ablations_switches_load_with_both_modules(tmp_path: Path) -> None:
    network = AlignSeg("lite", 3, channels=8)
    checkpoint.save(tmp_path / "a.safetensors", network)
    metadata = checkpoint.read_metadata(tmp_path / "a.safetensors")
    fields = json.loads(metadata["architecture"])
    del fields["align_fa"], fields["align_cm"]
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "old.safetensors", {**metadata, "architecture": json.dumps(fields)})
    loaded = checkpoint.load(tmp_path / "old.safetensors")
    assert loaded.architecture == network.architecture
    assert_same(network, loaded)


def test_half_stores_kernels_rounded_and_norms_whole(tmp_path: Path) -> None:
    network = AlignSeg("lite", 3, channels=8)
    checkpoint.save(tmp_path / "whole.safetensors", network)
    checkpoint.save(tmp_path / "half.safetensors", network, half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.55 * (tmp_path / "whole.safetensors").stat().st_size
    loaded = checkpoint.load(tmp_path / "half.safetensors").state_dict()
    for key, value in network.state_dict().items():
        assert loaded[key].dtype == value.dtype
        torch.testing.assert_close(loaded[key], value, rtol=1e-3 if value.ndim > 1 else 0, atol=1e-6 * (value.ndim > 1))


@pytest.mark.parametrize("wrap", [False, True], ids=["plain", "in state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize("dsn", [True, False])
def test_published_variants(tmp_path: Path, wrap: bool, prefix: str, counters: bool, dsn: bool) -> None:
    state = small_published_state()
    kept = {
        prefix + key: value
        for key, value in state.items()
        if (counters or not key.endswith("num_batches_tracked")) and (dsn or not key.startswith("dsn."))
    }
    network = checkpoint.load(save({"state_dict": kept, "epoch": 3} if wrap else kept, tmp_path))
    architecture = network.architecture
    assert (architecture.backbone, architecture.num_classes, architecture.aux_head) == ("resnet50", 5, dsn)
    assert torch.equal(network.head[3].weight, state["head.3.weight"])


def test_inplace_abn_becomes_batch_norm_of_equal_effect(tmp_path: Path) -> None:
    weight = torch.linspace(-1, 1, 8)
    network = checkpoint.load(save(small_published_state(**{"RRB1a.norm.weight": weight}), tmp_path))
    torch.testing.assert_close(network.refine_a["1"].norm[0].weight, weight.abs() + 1e-5)


def test_every_published_name_is_covered() -> None:
    network = AlignSeg("resnet101", 19, sampling="published")
    assert {published_weights.name_of(key) for key in network.state_dict()} == set(published_state())


def test_the_error_lists_every_key_that_does_not_fit(tmp_path: Path) -> None:
    state = small_published_state(surplus=torch.zeros(1), **{"bn1.bias": torch.zeros(7)})
    del state["RRB3b.norm.weight"], state["CAM.adapt.0.weight"]
    with pytest.raises(CheckpointError) as raised:
        checkpoint.load(save(state, tmp_path))
    message = str(raised.value)
    assert "2 missing:\n    CAM.adapt.0.weight\n    RRB3b.norm.weight" in message
    assert "1 unexpected:\n    surplus" in message
    assert "1 of another shape:" in message
    assert "bn1.bias: got (7,), expected (64,)" in message


class Payload:
    """Creates a file when unpickled by a loader that is not weights-only."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    torch.save({"head.3.weight": Payload(marker)}, tmp_path / "evil.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Payload(marker), protocol=2))
    for name in ("evil.pth", "pickle.pth"):
        with pytest.raises(CheckpointError, match="objects other than tensors"):
            checkpoint.load(tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["damaged.pth", "damaged.safetensors"])
def test_damaged_files_are_rejected(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02 not a checkpoint at all")
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / name)


def test_an_unknown_backbone_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, AlignSeg("lite", 3, channels=8))
    metadata = checkpoint.read_metadata(path)
    fields = json.loads(metadata["architecture"]) | {"backbone": "vgg16"}
    save_file({"a": torch.zeros(1)}, path, {**metadata, "architecture": json.dumps(fields)})
    with pytest.raises(CheckpointError, match="unknown backbone 'vgg16'"):
        checkpoint.load(path)


def test_other_state_dicts_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"it has 1 keys, such as fc.weight; .*'head.3.weight' is missing",
    ):
        checkpoint.load(save({"fc.weight": torch.zeros(2, 2)}, tmp_path))
    with pytest.raises(CheckpointError, match="contains a list, expected a state dict"):
        checkpoint.load(save([torch.zeros(2)], tmp_path))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist; expected a checkpoint"):
        checkpoint.load(tmp_path / "absent.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["head.3.weight", "CAM.adapt.0.weight"])
def test_published_tensors_that_are_not_finite_are_named(tmp_path: Path, name: str, value: float) -> None:
    state = small_published_state()
    state[name].view(-1)[1] = value
    with pytest.raises(CheckpointError, match=r"1 of \d+ tensors have impossible values") as raised:
        checkpoint.load(save(state, tmp_path))
    assert f"{name}: 1 of {state[name].numel()} values are NaN or infinite" in str(raised.value)


def test_own_tensors_that_are_not_finite_are_named_and_at_most_ten_listed(tmp_path: Path) -> None:
    network = AlignSeg("lite", 3, channels=8)
    for value in network.state_dict().values():
        value.fill_(float("nan")) if value.is_floating_point() else None
    checkpoint.save(tmp_path / "a.safetensors", network)
    with pytest.raises(CheckpointError) as raised:
        checkpoint.load(tmp_path / "a.safetensors")
    assert str(raised.value).count("values are NaN or infinite") == 10


def test_negative_variances_are_named(tmp_path: Path) -> None:
    state = small_published_state(**{"bn1.running_var": torch.full((64,), -1.0)})
    with pytest.raises(CheckpointError, match=r"bn1.running_var: negative variances"):
        checkpoint.load(save(state, tmp_path))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"", "0 bytes"),
        (b"just text", "starting with the bytes 6a 75 73 74"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a PyTorch file") as raised:
        checkpoint.load(tmp_path / "weights.pth")
    assert kind in str(raised.value)


def test_safetensors_under_another_name_and_folders_are_named(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.pth", AlignSeg("lite", 3, channels=8))
    with pytest.raises(CheckpointError, match=r"rename it to \.safetensors"):
        checkpoint.load(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        checkpoint.load(tmp_path)


def test_the_advice_of_pytorch_does_not_show_through(tmp_path: Path) -> None:
    torch.save({"head.3.weight": Payload(tmp_path / "x")}, tmp_path / "evil.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but such files exist
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pth")
    torch.save(torch.zeros(9), tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-200])
    for name in ("evil", "script", "cut"):
        with pytest.raises(CheckpointError) as raised:
            checkpoint.load(tmp_path / f"{name}.pth")
        assert "weights_only" not in str(raised.value)
        assert "\x1b" not in str(raised.value)
        assert "\n" not in str(raised.value)
