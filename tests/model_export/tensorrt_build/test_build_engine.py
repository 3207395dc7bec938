"""A real engine, built by TensorRT for RTX without a GPU; the graph it is built from; what a failed build leaves."""

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
from model_export.tensorrt_build import builder, graph, source
from model_export.tensorrt_build import library as trt_library
from model_export.tensorrt_build import network as trt_network
from model_export.tensorrt_build.library import NoTensorRTError
from model_export.tensorrt_build.network import WrongNetworkError
from model_export.tensorrt_build.precision import PrecisionError
from service.model_folder.engine_plan import PlanInfo
from service.model_folder.manifest import sha256
from tests.model_export.frames import frames
from tests.model_export.onnx_export.test_calibration import STAYS_FLOAT

LITE = Path(__file__).parents[3] / "weights" / "alignseg-lite"
pytestmark = pytest.mark.skipif(not (LITE / "model.onnx").is_file(), reason="weights/alignseg-lite is not here")


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(LITE / "model.onnx")


@pytest.fixture(scope="module")
def rtx() -> trt_library.Library:
    try:
        return trt_library.load("tensorrt_rtx")
    except NoTensorRTError as error:
        pytest.skip(str(error))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("model.json", "model.onnx", "model.safetensors"):
        shutil.copy(LITE / name, tmp_path)
    told = json.loads((LITE / "model.json").read_text())
    told["input"]["buckets"] = [[96, 128], [65, 97]]  # PyTorch takes its time at full size
    (tmp_path / "model.json").write_text(json.dumps(told))
    return tmp_path


def run(model: onnx.ModelProto, pictures: Any) -> list[Any]:
    options = onnxruntime.SessionOptions()
    # ONNX Runtime 1.32's optimiser takes fp8 for int8 when it fuses Q/DQ, and computes nonsense.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(["class_map", "logits"], {"pictures": pictures}))


def test_prepared_graphs_compute_the_same(model: onnx.ModelProto) -> None:
    pictures = parity.resized(frames()[0], 97, 130)[None]
    ids, logits = run(model, pictures)
    for precision, agreeing, error in (("fp32", 1.0, 1e-4), ("fp16", 0.997, 2e-2)):
        prepared = graph.prepare(model, precision, "gridsample")
        got_ids, got_logits = run(prepared, pictures)
        assert (got_ids == ids).mean() >= agreeing
        assert np.abs(got_logits - logits).max() < error
    assert len(model.graph.node) > len(prepared.graph.node) - 60  # the model itself is as it was
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
        told = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        assert told == {"sampling": b"standard", "plugin_namespace": b"alignseg", "plugin_version": b"1", "aot": 1}


def test_a_weight_beyond_float16_is_an_error(model: onnx.ModelProto) -> None:
    wild = onnx.ModelProto.FromString(model.SerializeToString())
    weight = next(w for w in wild.graph.initializer if w.name == "head.3.bias")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(weight.dims), 1e6, np.float32), weight.name))
    with pytest.raises(PrecisionError, match=r"head.3.bias holds 1e\+06.*Use bf16 or fp32"):
        graph.prepare(wild, "fp16", "plugin")
    graph.prepare(wild, "bf16", "plugin")


def test_builds_a_real_engine(
    rtx: object, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--runtime", "tensorrt_rtx", "--arch", "89", "--bucket", "96x128", "--batch", "1", "2"]
    assert build_engine.main([str(folder), *arguments]) == 0
    told = capsys.readouterr().out
    assert "9 gridsample layers, as many as the model has; sampling is linear" in told
    assert "2 profiles: pictures of 96x128 in batches of 1-1, 2-2" in told
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
    assert "fits, nothing to build" in capsys.readouterr().out
    assert description.stat().st_mtime > 1  # the newest again: of those that fit, that one is served
    for other in (["--precision", "bf16"], ["--batch", "1", "4"]):
        monkeypatch.setattr(builder, "build", refuse)
        assert build_engine.main([str(folder), *arguments, *other, "--if-missing"]) == 2
        assert "error: asked to build" in capsys.readouterr().err


def refuse(*_: object) -> bytes:
    raise RuntimeError("asked to build")


def test_the_plan_is_named_after_the_bytes_that_were_read(
    rtx: object, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sha256(folder / "model.onnx")

    def exchange(*_: object) -> bytes:
        (folder / "model.onnx").write_bytes(b"another model")
        return b"plan"

    monkeypatch.setattr(builder, "build", exchange)
    arguments = ["--runtime", "tensorrt_rtx", "--arch", "89", "--bucket", "96x128"]
    assert build_engine.main([str(folder), *arguments, "--no-verify"]) == 0
    (description,) = (folder / "engines").glob("*.json")
    assert PlanInfo.model_validate_json(description.read_bytes()).onnx_sha256 == before


def test_dry_run_reports_and_writes_nothing(rtx: object, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_engine.main([str(folder), "--runtime", "tensorrt_rtx", "--precision", "bf16", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert [line.split()[0] for line in told.splitlines()] == ["runtime", "prepare", "network", "warps", "dry"]
    assert "70 convolution" in told
    assert not (folder / "engines").exists()


def test_nearest_sampling_is_found_out(rtx: trt_library.Library, model: onnx.ModelProto) -> None:
    """As TensorRT's parser makes of opset 20's mode "linear"."""
    prepared = graph.prepare(model, "fp32", "gridsample")
    for function in prepared.functions:
        for node in function.node:
            for attribute in node.attribute:
                if node.op_type == "GridSample" and attribute.name == "mode":
                    attribute.s = b"nearest"
    network = trt_network.parse(rtx, rtx.trt.Builder(rtx.logger), prepared)
    with pytest.raises(WrongNetworkError, match=r"NEAREST.*expected LINEAR"):
        trt_network.check(rtx, network, prepared, "gridsample")


def test_a_network_with_fewer_warps_is_found_out(rtx: trt_library.Library, model: onnx.ModelProto) -> None:
    prepared = graph.prepare(model, "fp32", "gridsample")
    network = trt_network.parse(rtx, rtx.trt.Builder(rtx.logger), prepared)
    with pytest.raises(WrongNetworkError, match="0 plugin layers, the model needs 5"):
        trt_network.check(rtx, network, prepared, "plugin")


def test_a_build_that_fails_leaves_the_old_engine(
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
    assert "neither a model folder nor a file" in capsys.readouterr().err
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    assert build_engine.main([str(folder)]) == 2
    assert "pip install -e '.[export,tensorrt]'" in capsys.readouterr().err


def test_what_is_not_built_is_never_called_wrong(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = trt_library.Library.__new__(trt_library.Library)
    monkeypatch.setattr(trt_library, "load", lambda runtime: library)
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    assert build_engine.main([str(tmp_path / "bad.pth")]) == 2
    assert "error: " in capsys.readouterr().err

    def breach(*_: object) -> None:
        raise parity.ParityError("differs")

    monkeypatch.setattr(source, "find", breach)
    assert build_engine.main([str(folder)]) == 2
    assert "error: differs" in capsys.readouterr().err


def test_a_batch_of_none(rtx: object, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--runtime", "tensorrt_rtx", "--arch", "89", "--bucket", "96x128", "--batch", "0", "--dry-run"]
    assert build_engine.main([str(folder), *arguments]) == 2
    assert "max_batch" in capsys.readouterr().err


def test_rtx_takes_no_plugins(rtx: object, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_engine.main([str(folder), "--runtime", "tensorrt_rtx", "--warp", "plugin", "--dry-run"]) == 2
    assert "Use --warp gridsample" in capsys.readouterr().err


def test_float32_is_float32_and_graphs_can_be_captured(rtx: trt_library.Library) -> None:
    flags = rtx.trt.BuilderFlag
    config = builder.configure(rtx, rtx.trt.Builder(rtx.logger), [], [89], None)
    assert not config.get_flag(flags.TF32)
    assert config.get_flag(flags.REQUIRE_USER_ALLOCATION)


def test_profiles_cover_all_batches() -> None:
    found = builder.profiles([(4, 6), (6, 4)], [8, 1])
    assert [(p.bucket, p.min_batch, p.max_batch) for p in found] == [
        ((4, 6), 1, 1), ((4, 6), 2, 8), ((6, 4), 1, 1), ((6, 4), 2, 8),
    ]  # fmt: skip


def test_a_malformed_bucket_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_engine.main(["model", "--bucket", "360"])
    assert "argument --bucket: got '360', expected HEIGHTxWIDTH" in capsys.readouterr().err


def test_verify_compares_onnx_runtime_with_pytorch(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(folder)]) == 0
    told = capsys.readouterr().out
    assert "no TensorRT engine is compared" in told
    assert told.count("onnxruntime-cpu") == 2
    assert "BREACH" not in told


def test_verify_fails_on_a_breach(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(verify.AGREEING, "fp32", 1.1)
    monkeypatch.setattr(verify, "compare", lambda *_: [verify.Row("x", "fp32", (1, 2, 3), 0.5, 0.0)])
    assert verify.main([str(folder)]) == 1
    assert "BREACH" in capsys.readouterr().out
    assert verify.main([str(folder / "nowhere")]) == 2


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_eight_bits_measure_ranges_and_build(
    rtx: object, model: onnx.ModelProto, folder: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    pictures = parity.resized(frames()[0], 96, 128)[None]
    ids, _ = run(model, pictures)
    prepared = graph.prepare(model, precision, "gridsample", [pictures[0]])
    got, _ = run(prepared, pictures)
    assert (got == ids).mean() > 0.95
    left = [n.name for n in prepared.graph.node if n.op_type == "Conv" and not n.input[0].endswith(".dq")]
    assert set(left) == STAYS_FLOAT
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
    assert "1 of 1 pictures" in capsys.readouterr().out
    assert next((folder / "engines").glob(f"*-{precision}.plan")).stat().st_size > 1_000_000


def test_fp8_is_refused_where_no_gpu_has_it(rtx: object, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--runtime", "tensorrt_rtx", "--precision", "fp8", "--dry-run"]
    assert build_engine.main([str(folder), *arguments, "--arch", "86"]) == 2
    assert "fp8 needs compute capability 8.9, which sm86 has not" in capsys.readouterr().err
