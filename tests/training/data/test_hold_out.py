"""A drive is left out of training and measured on; the error names the drives there are."""

from pathlib import Path

import pytest

from tests.conftest import CAMVID as SHARED_CAMVID
from tests.training import tiny_data
from training import train
from training.config import RECIPES, Config
from training.data.datasets import CAMVID, Pair
from training.data.hold_out import drive_of, only, split
from training.loop.trainer import Trainer

NAMES = ("0001TP_006690", "0001TP_006720", "0006R0_f00930", "0016E5_00390")
PAIRS = [Pair(Path(f"{name}.jpg"), Path(f"{name}.png")) for name in NAMES]


def test_a_split_by_drive():
    rest, held_out = split(PAIRS, "0001TP")
    assert [drive_of(pair) for pair in held_out] == ["0001TP", "0001TP"]
    assert rest == PAIRS[2:]
    assert only(PAIRS, "0016E5") == PAIRS[3:]


def test_errors_name_the_drives():
    with pytest.raises(ValueError, match=r"got '0005VD', expected one of 0001TP \(2 images\), 0006R0 \(1 images\), "):
        split(PAIRS, "0005VD")
    with pytest.raises(ValueError, match="leaves no images to train on"):
        split(PAIRS[:2], "0001TP")


def test_the_shared_camvid_has_three_drives():
    if not SHARED_CAMVID.is_dir():
        pytest.skip(f"no CamVid at {SHARED_CAMVID}")
    pairs = CAMVID.pairs(SHARED_CAMVID, "train")
    assert [len(only(pairs, drive)) for drive in ("0001TP", "0006R0", "0016E5")] == [62, 101, 204]
    assert len(only(CAMVID.pairs(SHARED_CAMVID, "val"), "0016E5")) == 101


@pytest.fixture
def root(tmp_path):
    for index, name in enumerate(NAMES):
        tiny_data.write(tmp_path / "train" / "images" / f"{name}.jpg", tiny_data.picture(index))
        tiny_data.write(tmp_path / "train" / "labels" / f"{name}.png", tiny_data.labels(index, list(range(11))))
    return tmp_path  # val is not needed, and not there


def test_a_run_trains_on_the_others_and_says_what_it_measured(root, tmp_path):
    import torch

    config = Config(root=str(root), hold_out="0006R0", channels=8, crop="32x32", batch=2, eval_every=1)
    trainer = Trainer(config, torch.device("cpu"))
    assert [pair.picture.stem for pair in trainer.val_pairs] == ["0006R0_f00930"]
    assert trainer.steps_per_epoch == 1
    facts = trainer._facts(0.5)
    assert facts["train_on"] == "train without 0006R0"
    assert facts["held_out_miou"] == "0.5"
    assert "val_miou" not in facts


def test_mistakes_in_the_flags(root, tmp_path, capsys):
    flags = [f"--root={root}", f"--out={tmp_path / 'run'}", "--iterations=1", "--batch=1"]
    assert train.main([*flags, "--hold-out=0009XX"]) == 2
    assert "expected one of 0001TP (2 images)" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"--hold-out .* got --train-on 'train\+val'"):
        Config(root="x", hold_out="0001TP", train_on="train+val")


def test_the_recipe_is_valid():
    config = Config(**{**RECIPES["efficientnet"], "root": "x"})
    assert config.backbone == config.init_from == "efficientnet-lite0"
    assert all((side - 1) % 16 == 0 for side in config.crop_size)
