"""Pre-trained backbones: CSAIL's fit completely, torchvision's except for the stem and the block after it."""

import pytest
import torch

from model_export.alignseg import AlignSeg
from model_export.alignseg.backbone import Backbone
from model_export.checkpoints import checkpoint, published_weights
from model_export.checkpoints.checkpoint import CheckpointError
from tests.training import tiny_data
from training.loop.pretrained import load, load_backbone
from training.train import main


def csail(name="resnet18"):
    """A state dict as CSAIL's ImageNet weights have it, ImageNet's classifier with it."""
    torch.manual_seed(1)
    state = {published_weights.name_of(f"backbone.{key}"): value for key, value in Backbone(name).state_dict().items()}
    return {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


def torchvision():
    """ResNet-18 in torchvision's names and shapes (its model as of 0.20)."""
    state = {key: value for key, value in csail().items() if not key.startswith(("conv", "bn", "layer1.0.downsample"))}
    state["conv1.weight"] = torch.randn(64, 3, 7, 7)
    state["layer1.0.conv1.weight"] = torch.randn(64, 64, 3, 3)
    norm = {"weight": torch.ones(64), "bias": torch.zeros(64), "running_mean": torch.zeros(64)}
    return {**state, **{f"bn1.{key}": value for key, value in norm.items()}, "bn1.running_var": torch.ones(64)}


def saved(state, folder):
    path = folder / "backbone.pth"
    torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["lite", "resnet18", "resnet50"])
def test_csails_weights_fit_whole(name, tmp_path):
    theirs, backbone = csail(name), Backbone(name)
    fit = load_backbone(backbone, saved({f"module.{key}": value for key, value in theirs.items()}, tmp_path))
    assert fit.whole
    assert str(fit) == ""
    for key, value in backbone.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, theirs[published_weights.name_of(f"backbone.{key}")]), key


def test_torchvisions_stem_is_refused_by_name(tmp_path):
    backbone = Backbone("resnet18")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(CheckpointError) as raised:
        load_backbone(backbone, saved(torchvision(), tmp_path))
    message = str(raised.value)
    assert "one 7x7 convolution" in message
    assert "--init-partly" in message
    assert "conv1.weight: got (64, 3, 7, 7), expected (64, 3, 3, 3)" in message
    assert "layer1.0.conv1.weight: got (64, 64, 3, 3), expected (64, 128, 3, 3)" in message
    assert "layer1.0.downsample.0.weight" in message
    assert "fc.weight" not in message
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_torchvisions_layers_load_when_asked(tmp_path):
    theirs, backbone = torchvision(), Backbone("resnet18")
    fit = load_backbone(backbone, saved(theirs, tmp_path), partly=True)
    assert torch.equal(backbone.stages[0][1].body[0][0].weight, theirs["layer1.1.conv1.weight"])
    assert torch.equal(backbone.stages[3][1].body[1][0].weight, theirs["layer4.1.conv2.weight"])
    left = {line.split(":")[0].rsplit(".", 1)[0] for line in fit.missing + fit.misshapen}
    assert left == {
        *("conv1", "conv2", "conv3", "bn1", "bn2", "bn3"),
        *("layer1.0.conv1", "layer1.0.bn1", "layer1.0.downsample.0", "layer1.0.downsample.1"),
    }


def test_files_that_are_no_backbone(tmp_path):
    with pytest.raises(CheckpointError, match="No tensor fits"):
        load_backbone(Backbone("lite"), saved({"a": torch.zeros(1)}, tmp_path), partly=True)
    with pytest.raises(CheckpointError, match="unexpected"):
        load_backbone(Backbone("lite"), saved({**csail("lite"), "head.3.weight": torch.zeros(1)}, tmp_path))
    with pytest.raises(CheckpointError, match="objects other than tensors"):
        load_backbone(Backbone("lite"), saved({"conv1.weight": print}, tmp_path))
    with pytest.raises(FileNotFoundError, match="--init-from: "):
        load(network(), tmp_path / "nowhere.pth")


def network(classes=11, channels=8, **choices):
    torch.manual_seed(2)
    return AlignSeg("lite", classes, channels, **choices)


def test_a_checkpoint_of_the_project_fits_whole(tmp_path):
    theirs, ours, path = network(), AlignSeg("lite", 11, 8), tmp_path / "theirs.safetensors"
    checkpoint.save(path, theirs)
    assert load(ours, path).whole
    for key, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[key]), key


def test_other_classes_take_all_but_the_last_layers_when_asked(tmp_path):
    theirs, ours, path = network(classes=3), AlignSeg("lite", 11, 8), tmp_path / "theirs.safetensors"
    checkpoint.save(path, theirs)
    untouched = ours.head[3].weight.clone()
    with pytest.raises(CheckpointError, match=r"--init-partly(.|\n)*head.3.weight: got \(3, 8, 1, 1\), expected \(11"):
        load(ours, path)
    fit = load(ours, path, partly=True)
    assert {line.split(":")[0] for line in fit.misshapen} == {
        f"{head}.3.{name}" for head in ("head", "aux_head") for name in ("weight", "bias")
    }
    assert torch.equal(ours.backbone.stem[0][0].weight, theirs.backbone.stem[0][0].weight)
    assert torch.equal(ours.head[3].weight, untouched)


def test_weights_of_the_other_sampling_are_refused(tmp_path):
    checkpoint.save(tmp_path / "theirs.safetensors", network(sampling="published"))
    with pytest.raises(CheckpointError, match="sampling published; expected standard"):
        load(network(), tmp_path / "theirs.safetensors", partly=True)


def test_a_run_starts_from_a_backbone_and_resumes_without_it(tmp_path, capsys):
    root, path = tiny_data.camvid(tmp_path / "data"), saved(csail("lite"), tmp_path)
    flags = ["--channels=8", "--crop=32x32", "--batch=2", "--amp=none", "--workers=0", f"--root={root}"]
    out = ["--iterations=1", f"--out={tmp_path / 'run'}"]
    assert main([*flags, *out, f"--init-from={path}", "--lr=1e-9", "--weight-decay=0"]) == 0
    assert "tensors from" in capsys.readouterr().out
    trained = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    for part in ("network", "average"):
        kernel = trained[part]["backbone.stages.0.0.body.0.0.weight"]
        torch.testing.assert_close(kernel, csail("lite")["layer1.0.conv1.weight"], atol=1e-6, rtol=0)
    path.unlink()
    assert main([f"--out={tmp_path / 'run'}", "--resume"]) == 0
    assert main([*flags, f"--out={tmp_path / 'other'}", f"--init-from={path}"]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
