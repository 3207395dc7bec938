"""The graph that TensorRT builds from: the same numbers, with precision and plugins written in; the parsed network."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from model_export.onnx_export import parity
from model_export.tensorrt_build import graph, library, network
from model_export.tensorrt_build.library import Library, NoTensorRTError
from model_export.tensorrt_build.network import WrongNetworkError
from model_export.tensorrt_build.precision import PrecisionError
from tests.model_export import shipped
from tests.model_export.frames import frames

LITE = Path(__file__).parents[3] / "weights" / "alignseg-lite"
pytestmark = pytest.mark.skipif(not (LITE / "model.onnx").is_file(), reason="weights/alignseg-lite is missing")


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(LITE / "model.onnx")


@pytest.fixture(scope="module")
def rtx() -> Library:
    try:
        return library.load("tensorrt_rtx")
    except NoTensorRTError as error:
        pytest.skip(str(error))


def run(model: onnx.ModelProto, images: Any) -> list[Any]:
    options = onnxruntime.SessionOptions()
    # ONNX Runtime 1.32's optimiser treats fp8 as int8 when it fuses Q/DQ, and computes wrong values.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(["class_map", "logits"], {"pictures": images}))


def test_prepared_graphs_compute_the_same(model: onnx.ModelProto) -> None:
    images = parity.resized(frames()[0], 97, 130)[None]
    ids, logits = run(model, images)
    for precision, agreeing, error in (("fp32", 1.0, 1e-4), ("fp16", 0.997, 2e-2)):
        prepared = graph.prepare(model, precision, "gridsample")
        actual_ids, actual_logits = run(prepared, images)
        assert (actual_ids == ids).mean() >= agreeing
        assert np.abs(actual_logits - logits).max() < error
    assert len(model.graph.node) > len(prepared.graph.node) - 60  # the model itself is unchanged
    assert any(node.op_type == "BatchNormalization" for node in model.graph.node)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_precision_is_written_into_the_graph(model: onnx.ModelProto, precision: str) -> None:
    half = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    for warp in ("plugin", "gridsample"):
        prepared = graph.prepare(model, precision, warp)
        nodes = {output: node for node in prepared.graph.node for output in node.output}
        types = {weight.name: weight.data_type for weight in prepared.graph.initializer}
        kinds = {node.op_type for node in prepared.graph.node}
        assert "BatchNormalization" not in kinds
        for node in prepared.graph.node:
            if node.op_type == "Conv":
                assert {types[name] for name in node.input[1:] if name} == {half}
            if node.op_type in {"Relu", "Clip"}:  # no casts between a convolution and its activation
                assert not any(nodes[name].op_type == "Cast" for name in node.input if name in nodes)
            if node.op_type in {"MatMul", "ArgMax"}:  # pooled means and the choice of the class
                assert all(types.get(name, TensorProto.FLOAT) == TensorProto.FLOAT for name in node.input)
            if node.op_type in {"AlignedAggregate", "AlignedContext"}:
                made_full = [nodes[name].op_type == "Cast" for name in node.input]
                in_full = [nodes[name].op_type in {"Cast", *shipped.NODES} for name in node.input]
                assert not any(made_full) if warp == "plugin" else all(in_full)
        assert bool(prepared.functions) == (warp == "gridsample")
        logits = nodes["logits"]
        assert (logits.op_type, logits.attribute[0].i) == ("Cast", TensorProto.FLOAT)
        (first,) = (node for node in prepared.graph.node if "pictures" in node.input and node.op_type != "Shape")
        assert first.op_type == "Cast"


def test_plugin_nodes_say_which_plugin(model: onnx.ModelProto) -> None:
    prepared = graph.prepare(model, "fp16", "plugin")
    called = [node for node in prepared.graph.node if node.domain == "alignseg"]
    assert [node.op_type for node in called] == shipped.aggregations(model)
    assert len(called) >= 4
    for node in called:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        assert attributes == {
            "sampling": b"standard",
            "plugin_namespace": b"alignseg",
            "plugin_version": b"1",
            "aot": 1,
        }


def test_a_weight_beyond_float16_is_an_error(model: onnx.ModelProto) -> None:
    wild = onnx.ModelProto.FromString(model.SerializeToString())
    weight = next(w for w in wild.graph.initializer if w.name == "head.3.bias")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(weight.dims), 1e6, np.float32), weight.name))
    with pytest.raises(
        PrecisionError, match=r"head.3.bias has values up to 1e\+06, .* 6.55e\+04.*Use --precision bf16"
    ):
        graph.prepare(wild, "fp16", "plugin")
    graph.prepare(wild, "bf16", "plugin")


def test_nearest_sampling_is_detected(rtx: Library, model: onnx.ModelProto) -> None:
    """TensorRT's parser reads opset 20's mode "linear" as nearest."""
    prepared = graph.prepare(model, "fp32", "gridsample")
    for function in prepared.functions:
        for node in function.node:
            for attribute in node.attribute:
                if node.op_type == "GridSample" and attribute.name == "mode":
                    attribute.s = b"nearest"
    parsed = network.parse(rtx, rtx.trt.Builder(rtx.logger), prepared)
    with pytest.raises(WrongNetworkError, match=r"NEAREST.*expected LINEAR"):
        network.check(rtx, parsed, prepared, "gridsample")


def test_a_network_with_fewer_warps_is_detected(rtx: Library, model: onnx.ModelProto) -> None:
    prepared = graph.prepare(model, "fp32", "gridsample")
    parsed = network.parse(rtx, rtx.trt.Builder(rtx.logger), prepared)
    expected = len(shipped.aggregations(model))
    with pytest.raises(WrongNetworkError, match=f"0 plugin layers, expected {expected} as in the model"):
        network.check(rtx, parsed, prepared, "plugin")
