"""Confidence in ONNX Runtime: right when asked for, not computed when not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from service.engines.onnx_outputs import keep_outputs, output_names
from service.engines.onnx_runtime import OnnxRuntimeEngine
from service.errors import EngineError, ManifestError
from tests import tiny_model

BATCH = np.random.default_rng(0).integers(0, 8, (2, 4, 6, 3), dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(tiny_model.strongest_colour(confidence=True), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_confidence_is_the_chosen_classes_probability(path: Path) -> None:
    engine = OnnxRuntimeEngine(path, intra_op_threads=1)
    assert engine.has_confidence
    answer = engine.infer(BATCH, with_confidence=True)
    odds = np.exp(BATCH.astype(np.float64))
    expected = odds.max(axis=3) / odds.sum(axis=3) * 255
    assert answer.confidence is not None
    assert answer.confidence.dtype == np.uint8
    assert np.abs(answer.confidence - expected).max() <= 0.51
    np.testing.assert_array_equal(answer.ids, engine.infer(BATCH).ids)
    assert engine.infer(BATCH).confidence is None


def test_what_is_not_asked_for_is_not_computed(path: Path, tmp_path: Path) -> None:
    def nodes(outputs: set[str]) -> list[str]:
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
        session = onnxruntime.InferenceSession(keep_outputs(path.read_bytes(), outputs), options)
        session.run(None, {"pictures": BATCH})
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
        return [event["args"]["op_name"] for event in events if event["cat"] == "Node"]

    assert "Softmax" in nodes({"class_map", "confidence"})
    assert nodes({"class_map"}) == ["Cast", "ArgMax", "Cast"]


def test_a_model_without_it(tmp_path: Path) -> None:
    onnx.save(tiny_model.strongest_colour(), tmp_path / "m.onnx")
    engine = OnnxRuntimeEngine(tmp_path / "m.onnx")
    assert not engine.has_confidence
    with pytest.raises(EngineError, match="confidence"):
        engine.infer(BATCH, with_confidence=True)


def test_a_file_that_changed_meanwhile_is_not_mixed_in(path: Path) -> None:
    engine = OnnxRuntimeEngine(path)
    path.write_bytes(path.read_bytes() + b"\x0a\x00")
    with pytest.raises(EngineError, match="has changed since it was loaded"):
        engine.infer(BATCH, with_confidence=True)
    assert engine.infer(BATCH).ids.shape == BATCH.shape[:3]


def test_a_model_without_a_class_map_is_refused(tmp_path: Path) -> None:
    model = tiny_model.strongest_colour()
    model.graph.node[-1].output[0] = model.graph.output[0].name = "labels"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ManifestError):
        OnnxRuntimeEngine(tmp_path / "m.onnx")


def test_outputs_are_kept_and_dropped_and_all_else_is_left_alone() -> None:
    whole = tiny_model.strongest_colour(confidence=True)
    data = whole.SerializeToString()
    assert output_names(data) == ["class_map", "confidence"]
    assert keep_outputs(data, {"class_map", "confidence"}) == data
    without = onnx.load_from_string(keep_outputs(data, {"class_map"}))
    del whole.graph.output[1], whole.graph.node[3:]
    assert without == whole


def test_what_a_subgraph_reads_is_kept() -> None:
    def branch(name: str, source: str) -> onnx.GraphProto:
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1])
        return onnx.helper.make_graph([onnx.helper.make_node("Identity", [source], [name])], name, [], [value])

    make = onnx.helper.make_node
    choice = make("If", ["c"], ["y"], then_branch=branch("a", "left"), else_branch=branch("b", "right"))
    nodes = [make(op, ["x"], [name]) for op, name in (("Abs", "left"), ("Neg", "right"), ("Exp", "dead"))]
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    model = onnx.helper.make_model(onnx.helper.make_graph([*nodes, choice], "g", [], [value]))
    kept = onnx.load_from_string(keep_outputs(model.SerializeToString(), {"y"}))
    assert [node.op_type for node in kept.graph.node] == ["Abs", "Neg", "If"]


@pytest.mark.parametrize("cut", [1, 5, 30, 200])
def test_a_file_that_is_cut_off_is_told(cut: int) -> None:
    data = tiny_model.strongest_colour().SerializeToString()
    with pytest.raises(ValueError, match=r"the file|protobuf"):
        keep_outputs(data[:-cut], set())
