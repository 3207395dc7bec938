"""The robustness table: of any predictor, the same images for each, a row for each corruption."""

import json

import numpy as np
import pytest

from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint
from tests.training import tiny_data
from training.data.corruptions import CORRUPTIONS
from training.data.datasets import CAMVID
from training.robustness import CLEAN, STRENGTHS, main, mean, measure


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny_data.camvid(tmp_path_factory.mktemp("camvid"))


def test_every_corruption_is_measured_at_every_strength(root):
    seen = []

    def predict(image):
        seen.append(image)
        return np.full(image.shape[:2], 3, np.uint8)

    pairs = CAMVID.pairs(root, "val")
    figures = measure(predict, CAMVID, pairs, STRENGTHS)
    assert figures.keys() == {CLEAN, *CORRUPTIONS}
    assert all(len(values) == len(STRENGTHS) for name, values in figures.items() if name != CLEAN)
    assert len(seen) == len(pairs) * (1 + len(CORRUPTIONS) * len(STRENGTHS))
    assert mean(figures) == pytest.approx(figures[CLEAN][0])  # the predictor does not look
    first = list(seen)
    seen.clear()
    measure(predict, CAMVID, pairs, STRENGTHS)
    assert all(np.array_equal(a, b) for a, b in zip(first, seen, strict=True))


def test_the_command(root, tmp_path, capsys):
    path = tmp_path / "tiny.safetensors"
    checkpoint.save(path, AlignSeg("lite", 11, channels=8))
    assert main([str(path), f"--root={root}", "--limit=1", f"--json={tmp_path / 'out.json'}"]) == 0
    assert "mean of the corrupted" in capsys.readouterr().out
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["images"] == 1
    assert content["miou"][str(path)].keys() == {CLEAN, *CORRUPTIONS}
    assert main([str(path), f"--root={root}", "--drive=0001TP"]) == 1
    assert "expected one of 0000 (1 images)" in capsys.readouterr().err.replace("\n", " ")
