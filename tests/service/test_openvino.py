"""OpenVINO against ONNX Runtime on the shipped model: two lowerings of the same nodes."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from service import manifest as manifests
from service.contracts import UInt8Array
from service.decode import decode
from service.engines.onnx_runtime import ROLE, OnnxRuntimeEngine
from service.errors import EngineError, ManifestError
from service.settings import REPOSITORY
from tests import tiny_model

pytest.importorskip("openvino", reason="openvino is not installed: pip install -e '.[openvino]'")
from service.engines.openvino import OpenVinoEngine

FOLDER = REPOSITORY / "weights" / "alignseg-lite"


@pytest.fixture(scope="module")
def shipped() -> Path:
    return manifests.verified_file(FOLDER, manifests.load(FOLDER), ROLE)


@pytest.fixture(scope="module")
def scene() -> UInt8Array:
    return decode((REPOSITORY / "service" / "page" / "scene.jpg").read_bytes(), max_pixels=10**6)


def test_masks_and_confidence_agree_at_any_size(shipped: Path, scene: UInt8Array) -> None:
    openvino, reference = OpenVinoEngine(shipped), OnnxRuntimeEngine(shipped)
    for batch in (scene[None], np.stack([scene[:131, :97], scene[-131:, -97:]])):
        got, expected = (engine.infer(batch, with_confidence=True) for engine in (openvino, reference))
        assert (got.ids == expected.ids).mean() >= 0.9995
        assert got.confidence is not None
        assert expected.confidence is not None
        assert np.abs(got.confidence.astype(int) - expected.confidence).max() <= 1


def test_an_answer_survives_the_next_picture(shipped: Path, scene: UInt8Array) -> None:
    engine = OpenVinoEngine(shipped)
    first = engine.infer(scene[None]).ids
    kept = first.copy()
    engine.infer(np.ascontiguousarray(scene[None, :200, ::-1]))
    np.testing.assert_array_equal(first, kept)


def test_the_published_sampling(tmp_path: Path, scene: UInt8Array) -> None:
    """The shipped weights under the other convention: not a good network, but one that both must compute alike."""
    from model_export import functions

    model = onnx.load(FOLDER / "model.onnx")
    del model.functions[:]
    functions.attach_bodies(model, "published")
    for node in model.graph.node:
        if node.domain == functions.DOMAIN:
            node.attribute[0].s = b"published"
    onnx.save(model, tmp_path / "m.onnx")
    batch = np.ascontiguousarray(scene[None, :200, :260])
    got, expected = (engine(tmp_path / "m.onnx").infer(batch).ids for engine in (OpenVinoEngine, OnnxRuntimeEngine))
    assert (got == expected).mean() >= 0.9995


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "not.onnx").write_bytes(b"not a model")
    with pytest.raises(ManifestError, match="can't load"):
        OpenVinoEngine(tmp_path / "not.onnx")
    onnx.save(tiny_model.strongest_colour(), tmp_path / "m.onnx")
    engine = OpenVinoEngine(tmp_path / "m.onnx")
    with pytest.raises(EngineError, match="no logits"):
        engine.infer(np.zeros((1, 4, 6, 3), np.uint8), with_confidence=True)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(np.zeros((1, 4, 6, 3), np.uint8))
