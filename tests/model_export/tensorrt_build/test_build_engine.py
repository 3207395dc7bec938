"""A real engine, built by TensorRT for RTX without a GPU; the graph it is built from; builds that fail."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from model_export import build_engine, verify
from model_export.checkpoints import checkpoint
from model_export.onnx_export import parity
from model_export.tensorrt_build import builder, graph, library, source, target
from model_export.tensorrt_build.library import Library, NoTensorRTError
from model_export.tensorrt_build.quantization import EightBit
from model_export.tensorrt_build.target import Target
from service.engines import cuda
from service.model_folder.engine_plan import PlanInfo
from service.model_folder.manifest import sha256
from tests.model_export import shipped
from tests.model_export.frames import frames
from tests.model_export.onnx_export.test_calibration import stays_float
from tests.model_export.tensorrt_build.test_graph import run
from tests.service.engines.tensorrt.fake_cuda_and_tensorrt import FakeCuda, Properties

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
    shipped.copy_networks(tmp_path)
    manifest = json.loads((LITE / "model.json").read_text())
    manifest["input"]["buckets"] = [[96, 128], [65, 97]]  # PyTorch is slow at full size
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    return tmp_path


def test_an_engine_is_built(
    rtx: object,
    model: onnx.ModelProto,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["--runtime", "tensorrt_rtx", "--arch", "89", "--bucket", "96x128", "--batch", "1", "2"]
    assert build_engine.main([str(folder), *arguments]) == 0
    output = capsys.readouterr().out
    assert f"{shipped.samples(model)} gridsample layers, as in the model; sampling is linear" in output
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


def test_dry_run_reports_and_writes_nothing(
    rtx: object, model: onnx.ModelProto, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_engine.main([str(folder), "--runtime", "tensorrt_rtx", "--precision", "bf16", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert [line.split()[0] for line in output.splitlines()] == ["runtime", "prepare", "network", "warps", "dry"]
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    assert f"{convolutions} convolution" in output
    assert not (folder / "engines").exists()


def test_without_arguments_the_servers_model_is_built(
    rtx: object, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For this machine's GPU; without one, TensorRT for RTX builds for the common ones, and says so."""
    monkeypatch.setattr(library, "load", lambda runtime: rtx)
    monkeypatch.setattr(cuda, "load", lambda: FakeCuda(devices=()))
    monkeypatch.setattr(builder, "build", lambda *_: b"plan")
    monkeypatch.setenv("ALIGNSEG_MODEL", str(folder))
    assert build_engine.main([]) == 0
    output = capsys.readouterr().out
    assert "for sm80-sm86-sm89-sm120 (this machine's GPU is not used" in output
    assert [path.suffix for path in sorted((folder / "engines").glob("[!.]*"))] == [".json", ".plan"]
    monkeypatch.setattr(cuda, "load", lambda: FakeCuda((Properties("NVIDIA GeForce RTX 4090", 8, 9),)))
    monkeypatch.delenv("ALIGNSEG_MODEL")
    assert build_engine.main(["--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "for NVIDIA GeForce RTX 4090\n" in output and "weights/alignseg-lite/model.onnx" in output


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


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_engine_that_differs_from_pytorch_is_not_written(
    rtx: object, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], interrupted: bool
) -> None:
    """Neither is one whose comparison is interrupted. While it is compared, the folder holds the earlier engine."""

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (folder / "engines").iterdir() if path.name != ".building"}

    monkeypatch.setattr(builder, "build", lambda *_: b"first plan")
    local = Target("NVIDIA Test", (89,), is_local=True)
    monkeypatch.setattr(target, "find", lambda *_: local)
    arguments = [str(folder), "--runtime", "tensorrt_rtx", "--bucket", "96x128"]
    assert build_engine.main([*arguments, "--no-verify"]) == 0
    first = files()

    def compare(checked: Path, frames: object, built: tuple[Path, PlanInfo]) -> int:
        plan, info = built
        assert plan.read_bytes() == b"second plan" and (info.plan.sha256, info.plan.bytes) == (sha256(plan), 11)
        assert {name: content for name, content in files().items() if not name.startswith(".")} == first
        if interrupted:
            raise KeyboardInterrupt
        return 1

    monkeypatch.setattr(builder, "build", lambda *_: b"second plan")
    monkeypatch.setattr(verify, "run", compare)
    assert build_engine.main(arguments) == (130 if interrupted else 1)
    assert ("discarded: its class maps differ" in capsys.readouterr().err) != interrupted
    assert {
        path.name: path.read_bytes() for path in (folder / "engines").iterdir() if path.name != ".building"
    } == first
    monkeypatch.setattr(verify, "run", lambda *_, **__: 0)
    assert build_engine.main(arguments) == 0
    assert next((folder / "engines").glob("*.plan")).read_bytes() == b"second plan"


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
    monkeypatch.setattr(library, "load", lambda runtime: object())
    monkeypatch.setattr(target, "find", lambda *_: Target("sm89", (89,), is_local=False))
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


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_eight_bits_measure_ranges_and_build(
    rtx: object, model: onnx.ModelProto, folder: Path, capsys: pytest.CaptureFixture[str], precision: EightBit
) -> None:
    images = parity.resized(frames()[0], 96, 128)[None]
    ids, _ = run(model, images)
    prepared = graph.prepare(model, precision, "gridsample", [images[0]])
    actual, _ = run(prepared, images)
    assert (actual == ids).mean() > 0.95
    in_float = [n.name for n in prepared.graph.node if n.op_type == "Conv" and not n.input[0].endswith(".dq")]
    assert set(in_float) == stays_float(model, precision)
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
    assert "fp8 needs compute capability 8.9 or higher, sm86 has a lower one" in capsys.readouterr().err


def test_a_dry_run_of_a_checkpoint_writes_nothing(
    rtx: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path
    checkpoint.save(folder / "model.safetensors", shipped.network())
    arguments = [str(folder / "model.safetensors"), "--runtime", "tensorrt_rtx", "--arch", "89", "--bucket", "96x128"]
    assert build_engine.main([*arguments, "--dry-run"]) == 0
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
    output = capsys.readouterr()
    assert "nothing is built" in output.out
    assert "Replaced" not in output.err


@pytest.mark.parametrize("missing", ["onnx", "torch", "onnxscript"])
@pytest.mark.parametrize("command", ["build_engine.py", "verify.py"])
def test_a_missing_package_is_an_error_that_names_the_extra(command: str, missing: str) -> None:
    script = f"import runpy, sys; sys.modules[{missing!r}] = None; "
    script += f"runpy.run_path('model_export/{command}', run_name='__main__')"
    call = [sys.executable, "-c", script]
    done = subprocess.run(call, cwd=LITE.parents[1], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 2
    assert "pip install -e '.[export" in done.stderr
    assert "Traceback" not in done.stderr
