"""Confidence from logits: right when requested, absent otherwise."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from service.engines.confidence import confidence
from service.engines.onnxruntime.engine import OnnxRuntimeEngine
from service.errors import EngineError, ManifestError
from tests.support import tiny_model

BATCH = np.random.default_rng(0).integers(0, 8, (2, 4, 6, 3), dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(tiny_model.strongest_color(confidence=True), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_confidence_is_the_chosen_classes_probability(path: Path) -> None:
    engine = OnnxRuntimeEngine(path, intra_op_threads=1)
    assert engine.has_confidence
    result = engine.infer(BATCH, with_confidence=True)
    odds = np.exp(BATCH.astype(np.float64))
    expected = odds.max(axis=3) / odds.sum(axis=3) * 255
    assert result.confidence is not None
    assert result.confidence.dtype == np.uint8
    assert np.abs(result.confidence - expected).max() <= 0.51
    np.testing.assert_array_equal(result.ids, engine.infer(BATCH).ids)
    assert engine.infer(BATCH).confidence is None


def test_a_model_without_logits_has_no_confidence(tmp_path: Path) -> None:
    onnx.save(tiny_model.strongest_color(), tmp_path / "m.onnx")
    engine = OnnxRuntimeEngine(tmp_path / "m.onnx")
    assert not engine.has_confidence
    with pytest.raises(EngineError, match="confidence"):
        engine.infer(BATCH, with_confidence=True)


def test_a_model_without_a_class_map_is_refused(tmp_path: Path) -> None:
    model = tiny_model.strongest_color()
    model.graph.node[-1].output[0] = model.graph.output[0].name = "labels"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ManifestError):
        OnnxRuntimeEngine(tmp_path / "m.onnx")


@pytest.mark.parametrize("size", [(9, 14), (200, 3), (5, 7), (1, 1)])
def test_logits_are_upsampled_with_aligned_corners(size: tuple[int, int]) -> None:
    logits = np.random.default_rng(1).normal(0, 3, (2, 4, 5, 7)).astype(np.float32)
    full = torch.nn.functional.interpolate(torch.from_numpy(logits), size=size, mode="bilinear", align_corners=True)
    expected = full.softmax(dim=1).amax(dim=1).numpy() * 255
    assert np.abs(confidence(logits, size) - expected).max() <= 0.51
