import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from service.engines.onnxruntime.engine import OnnxRuntimeEngine
from service.engines.selection import open_engine
from service.errors import EngineError, EngineUnavailable, ManifestError
from service.settings import Settings
from tests.support import tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model.write(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_infers_batches_of_any_size(folder: Path) -> None:
    engine = OnnxRuntimeEngine(folder / "model.onnx", intra_op_threads=1)
    assert (engine.name, engine.max_batch) == ("onnxruntime-cpu", 1)
    for shape in ((1, 4, 6, 3), (3, 7, 5, 3)):
        batch = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        result = engine.infer(batch)
        assert (result.ids.dtype, result.confidence) == (np.uint8, None)
        np.testing.assert_array_equal(result.ids, batch.argmax(axis=3))


def test_a_batch_that_does_not_fit_the_graph_is_an_engine_error(folder: Path) -> None:
    engine = OnnxRuntimeEngine(folder / "model.onnx")
    with pytest.raises(EngineError, match="onnxruntime-cpu failed on a batch of"):
        engine.infer(np.zeros((1, 4, 6, 4), dtype=np.uint8))
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(np.zeros((1, 4, 6, 3), dtype=np.uint8))


def test_a_graph_with_another_signature_is_rejected(tmp_path: Path) -> None:
    onnx.save(tiny_model.strongest_color(TensorProto.INT32), tmp_path / "m.onnx")
    with pytest.raises(ManifestError, match=r"pictures tensor\(int32\).*expected one input tensor\(uint8\)"):
        OnnxRuntimeEngine(tmp_path / "m.onnx")


def test_a_file_that_is_no_model_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(ManifestError, match="can't load"):
        OnnxRuntimeEngine(tmp_path / "m.onnx")


def test_a_missing_provider_is_an_error(folder: Path) -> None:
    with pytest.raises(EngineUnavailable, match="has no NoSuchExecutionProvider"):
        OnnxRuntimeEngine(folder / "model.onnx", provider="NoSuchExecutionProvider")


def test_without_onnxruntime_the_error_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineUnavailable, match=r"pip install -e '.\[cpu\]'"):
        OnnxRuntimeEngine(folder / "model.onnx")


def test_the_log_says_why_the_engine_was_chosen(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # faster, where it is installed
    manifest = tiny_model.write(folder)
    with caplog.at_level("INFO"):
        assert open_engine(Settings(model=folder), manifest).name == "onnxruntime-cpu"
        open_engine(Settings(model=folder, engine="onnxruntime-cpu"), manifest)
    automatic, by_name = (record.message for record in caplog.records)
    assert automatic.startswith("onnxruntime-cpu serves tiny 1 from ")
    assert by_name.endswith(", chosen by ALIGNSEG_ENGINE=onnxruntime-cpu.")


def test_an_exchanged_file_is_rejected(folder: Path) -> None:
    manifest = tiny_model.write(folder)
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(ManifestError, match="sha256"):
        open_engine(Settings(model=folder), manifest)
