"""Logit shifts, on pixels for which the best shift is known."""

import pytest
import torch

from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint
from tests.training import tiny_data
from training import logit_adjustment
from training.logit_adjustment import best_shift, miou


def test_a_rare_class_that_is_never_predicted_is_raised():
    """Ten pixels of class 1 are 0.4 below class 0, thirty of class 0 are 1.0 above class 1."""
    logits = torch.tensor([[1.0] * 30 + [0.4] * 10, [0.0] * 40])
    truth = torch.tensor([0] * 30 + [1] * 10)
    shift = best_shift(logits, truth)
    assert miou(logits, truth) == pytest.approx(0.375)  # 30 of 40, and none
    assert miou(logits + shift[:, None], truth) == 1.0
    assert 0.4 < float(shift[1] - shift[0]) < 1.0
    assert float(shift.sum()) == pytest.approx(0.0, abs=1e-6)


def test_perfect_predictions_are_not_shifted():
    logits = torch.eye(3).repeat(1, 5)
    assert best_shift(logits, torch.arange(3).repeat(5)).eq(0).all()


def test_miou_ignores_absent_classes():
    logits = torch.tensor([[2.0, 2.0], [1.0, 1.0], [0.0, 0.0]])
    assert miou(logits, torch.tensor([0, 1])) == pytest.approx(0.25)  # a half, and none; the third is absent


def test_the_shift_goes_into_the_heads_bias(tmp_path, capsys):
    torch.manual_seed(0)
    network = AlignSeg("lite", 11, channels=8)
    before, after = tmp_path / "before.safetensors", tmp_path / "after.safetensors"
    checkpoint.save(before, network, metadata={"train_on": "train", "val_miou": "0.5"})
    root = tiny_data.camvid(tmp_path / "camvid")
    assert logit_adjustment.main([str(before), "-o", str(after), "--root", str(root)]) == 0
    assert "camvid train" in capsys.readouterr().out
    old, new = checkpoint.load(before).state_dict(), checkpoint.load(after).state_dict()
    changed = {key for key in old if not torch.equal(old[key], new[key])}
    assert changed == {"head.3.bias"}
    metadata = checkpoint.read_metadata(after)
    assert metadata["balanced_on"] == "train" and metadata["train_on"] == "train" and "val_miou" not in metadata


def test_a_missing_checkpoint_is_an_error(tmp_path, capsys):
    assert (
        logit_adjustment.main([str(tmp_path / "none.safetensors"), "-o", str(tmp_path / "o"), "--root", str(tmp_path)])
        == 2
    )
    assert "none.safetensors" in capsys.readouterr().err
