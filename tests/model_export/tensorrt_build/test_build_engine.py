"""A real engine, built by TensorRT for RTX without a GPU; the graph it is built from; builds that fail."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from model_export import build_engine, verify
from model_export.onnx_export import parity
from model_export.tensorrt_build import builder, graph, library, network, source
from model_export.tensorrt_build.library import Library, NoTensorRTError
from model_export.tensorrt_build.network import WrongNetworkError
from model_export.tensorrt_build.precision import PrecisionError
from service.model_folder.engine_plan import PlanInfo
from service.model_folder.manifest import sha256
from tests.model_export.frames import frames
from tests.model_export.onnx_export.test_calibration import STAYS_FLOAT

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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("model.json", "model.onnx", "model.safetensors"):
        shutil.copy(LITE / name, tmp_path)
    manifest = json.loads((LITE / "model.json").read_text())
    manifest["input"]["buckets"] = [[96, 128], [65, 97]]  # PyTorch is slow at full size
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    return tmp_path


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
            if node.op_type in {"MatMul", "ArgMax"}:  # pooled means and the choice of the class
                assert all(types.get(name, TensorProto.FLOAT) == TensorProto.FLOAT for name in node.input)
            if node.op_type in {"AlignedAggregate", "AlignedContext"}:
                made_full = [nodes[name].op_type == "Cast" for name in node.input]
                assert not any(made_full) if warp == "plugin" else all(made_full)
        assert bool(prepared.functions) == (warp == "gridsample")
        logits = nodes["logits"]
        assert (logits.op_type, logits.attribute[0].i) == ("Cast", TensorProto.FLOAT)
        (first,) = (node for node in prepared.graph.node if "pictures" in node.input and node.op_type != "Shape")
        assert first.op_type == "Cast"


def test_plugin_nodes_say_which_plugin(model: onnx.ModelProto) -> None:
    prepared = graph.prepare(model, "fp16", "plugin")
    called = [node for node in prepared.graph.node if node.domain == "alignseg"]
    assert len(called) == 5
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


def test_an_engine_is_built(
    rtx: object, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--runtime", "tensorrt_rtx", "--arch", "89", "--bucket", "96x128", "--batch", "1", "2"]
    assert build_engine.main([str(folder), *arguments]) == 0
    output = capsys.readouterr().out
    assert "9 gridsample layers, as in the model; sampling is linear" in output
    assert "2 profiles: images of 96x128 in batches of 1-1, 2-2" in output
    (description,) = (folder / "engines").glob("*.json")
    info = PlanInfo.model_validate_json(description.read_bytes())
    plan = description.with_suffix(".plan")
    assert (info.plan.sha256, info.plan.bytes) == (sha256(plan), plan.stat().st_size)
    assert plan.stat().st_size > 5_000_000
    assert (info.runtime, info.precision, info.compute_capabilities) == ("tensorrt_rtx", "fp16", ("8.9",))
    assert (info.num_classes, info.onnx_sha256) == (11, sha256(folder / "model.onnx"))
    assert [(p.min_batch, p.max_batch) for p in info.profiles] == [(1, 1), (2, 2)]
    assert {path.suffix for path in (folder / "engines").glob("[!.]*")} == {".json", ".plan"}
    os.utime(description, (1, 1))
    assert build_engine.main([str(folder), *arguments, "--if-missing"]) == 0
    assert "was built for the same options; nothing to build" in capsys.readouterr().out
    assert description.stat().st_mtime > 1  # the newest again: of the engines that fit, the newest is served
    for other in (["--precision", "bf16"], ["--batch", "1", "4"]):
        monkeypatch.setattr(builder, "build", refuse)
        assert build_engine.main([str(folder), *arguments, *other, "--if-missing"]) == 2
        assert "error: asked to build" in capsys.readouterr().err


def refuse(*_: object) -> bytes:
    raise RuntimeError("asked to build")


def test_the_description_names_the_onnx_file_that_was_read(
    rtx: object, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sha256(folder / "model.onnx")

    def replace_onnx(*_: object) -> bytes:
        (folder / "model.onnx").write_bytes(b"another model")
        return b"plan"

    monkeypatch.setattr(builder, "build", replace_onnx)
    arguments = ["--runtime", "tensorrt_rtx", "--arch", "89", "--bucket", "96x128"]
    assert build_engine.main([str(folder), *arguments, "--no-verify"]) == 0
    (description,) = (folder / "engines").glob("*.json")
    assert PlanInfo.model_validate_json(description.read_bytes()).onnx_sha256 == before


def test_dry_run_reports_and_writes_nothing(rtx: object, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_engine.main([str(folder), "--runtime", "tensorrt_rtx", "--precision", "bf16", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert [line.split()[0] for line in output.splitlines()] == ["runtime", "prepare", "network", "warps", "dry"]
    assert "70 convolution" in output
    assert not (folder / "engines").exists()


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
    with pytest.raises(WrongNetworkError, match="0 plugin layers, expected 5 as in the model"):
        network.check(rtx, parsed, prepared, "plugin")


def test_a_failed_build_keeps_the_old_engine(
    rtx: object, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "engines").mkdir()
    (folder / "engines" / "old.plan").write_bytes(b"old")

    def fail(*_: object) -> bytes:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(builder, "build", fail)
    arguments = ["--runtime", "tensorrt_rtx", "--arch", "89", "--bucket", "96x128"]
    assert build_engine.main([str(folder), *arguments]) == 2
    assert "error: no kernel" in capsys.readouterr().err
    assert [path.name for path in (folder / "engines").glob("[!.]*")] == ["old.plan"]


def test_errors_say_what_to_do(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_engine.main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere does not exist; expected a model folder" in capsys.readouterr().err
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    assert build_engine.main([str(folder)]) == 2
    assert "pip install -e '.[export,tensorrt]'" in capsys.readouterr().err


def test_errors_before_the_build_exit_with_2(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tensorrt = Library.__new__(Library)
    monkeypatch.setattr(library, "load", lambda runtime: tensorrt)
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    assert build_engine.main([str(tmp_path / "bad.pth")]) == 2
    assert "error: " in capsys.readouterr().err

    def differ(*_: object) -> None:
        raise parity.ParityError("differs")

    monkeypatch.setattr(source, "find", differ)
    assert build_engine.main([str(folder)]) == 2
    assert "error: differs" in capsys.readouterr().err


def test_a_batch_size_of_zero_is_rejected(rtx: object, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--runtime", "tensorrt_rtx", "--arch", "89", "--bucket", "96x128", "--batch", "0", "--dry-run"]
    assert build_engine.main([str(folder), *arguments]) == 2
    assert "max_batch" in capsys.readouterr().err


def test_tensorrt_for_rtx_accepts_no_plugins(rtx: object, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_engine.main([str(folder), "--runtime", "tensorrt_rtx", "--warp", "plugin", "--dry-run"]) == 2
    assert "Use --warp gridsample" in capsys.readouterr().err


def test_tf32_is_off_and_cuda_graphs_can_be_captured(rtx: Library) -> None:
    flags = rtx.trt.BuilderFlag
    config = builder.configure(rtx, rtx.trt.Builder(rtx.logger), [], [89], None)
    assert not config.get_flag(flags.TF32)
    assert config.get_flag(flags.REQUIRE_USER_ALLOCATION)


def test_profiles_cover_all_batches() -> None:
    profiles = builder.profiles([(4, 6), (6, 4)], [8, 1])
    assert [(p.bucket, p.min_batch, p.max_batch) for p in profiles] == [
        ((4, 6), 1, 1), ((4, 6), 2, 8), ((6, 4), 1, 1), ((6, 4), 2, 8),
    ]  # fmt: skip


def test_a_malformed_bucket_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_engine.main(["model", "--bucket", "360"])
    assert "argument --bucket: got '360'; expected HEIGHTxWIDTH" in capsys.readouterr().err


def test_verify_compares_onnx_runtime_with_pytorch(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(folder)]) == 0
    output = capsys.readouterr().out
    assert "no TensorRT engine to compare" in output
    assert output.count("onnxruntime-cpu") == 2
    assert "FAILED" not in output


def test_verify_fails_when_a_runtime_differs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(verify.AGREEING, "fp32", 1.1)
    monkeypatch.setattr(verify, "compare", lambda *_: [verify.Row("x", "fp32", (1, 2, 3), 0.5, 0.0)])
    assert verify.main([str(folder)]) == 1
    assert "FAILED" in capsys.readouterr().out
    assert verify.main([str(folder / "nowhere")]) == 2


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_eight_bits_measure_ranges_and_build(
    rtx: object, model: onnx.ModelProto, folder: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    images = parity.resized(frames()[0], 96, 128)[None]
    ids, _ = run(model, images)
    prepared = graph.prepare(model, precision, "gridsample", [images[0]])
    actual, _ = run(prepared, images)
    assert (actual == ids).mean() > 0.95
    in_float = [n.name for n in prepared.graph.node if n.op_type == "Conv" and not n.input[0].endswith(".dq")]
    assert set(in_float) == STAYS_FLOAT
    stored = {w.name: w.data_type for w in prepared.graph.initializer}
    scales = {stored[n.input[1]] for n in prepared.graph.node if n.op_type.lower().endswith("quantizelinear")}
    assert scales == {TensorProto.FLOAT16}
    arguments = ["--runtime", "tensorrt_rtx", "--arch", "89", "--bucket", "96x128", "--batch", "1"]
    assert build_engine.main([str(folder), "--precision", precision, *arguments]) == 2
    assert "--calibration FOLDER" in capsys.readouterr().err
    (folder / "typical").mkdir()
    shutil.copy(Path(__file__).parents[2] / "data" / "scene.jpg", folder / "typical")
    arguments += ["--precision", precision, "--calibration", str(folder / "typical")]
    assert build_engine.main([str(folder), *arguments]) == 0
    assert "1 of 1 images" in capsys.readouterr().out
    assert next((folder / "engines").glob(f"*-{precision}.plan")).stat().st_size > 1_000_000


def test_fp8_is_rejected_for_gpus_without_it(rtx: object, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--runtime", "tensorrt_rtx", "--precision", "fp8", "--dry-run"]
    assert build_engine.main([str(folder), *arguments, "--arch", "86"]) == 2
    assert "fp8 needs compute capability 8.9 or newer, sm86 has less" in capsys.readouterr().err
