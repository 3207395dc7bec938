"""verify.py compares ONNX Runtime, and a TensorRT engine, with PyTorch."""

import json
from pathlib import Path

import pytest

from model_export import verify
from service.engines import cuda
from service.engines.tensorrt import library
from service.model_folder.engine_plan import PlanProfile
from tests.model_export import shipped
from tests.service.engines.tensorrt.fake_cuda_and_tensorrt import FakeCuda, FakeTensorRT
from tests.service.engines.tensorrt.plans import write_plan

LITE = Path(__file__).parents[2] / "weights" / "alignseg-lite"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shipped.copy_networks(tmp_path)
    manifest = json.loads((LITE / "model.json").read_text())
    manifest["input"]["buckets"] = [[96, 128], [65, 97]]  # PyTorch is slow at full size
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    return tmp_path


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


def test_verify_compares_the_engine_that_fits(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """verify.py finds and runs the engine; the fake computes something else, so the comparison fails."""
    fake = FakeTensorRT(FakeCuda())
    monkeypatch.setattr(cuda, "load", lambda: fake.cuda)
    monkeypatch.setattr(library, "installed", lambda runtime=None: (fake, "tensorrt"))
    manifest = json.loads((folder / "model.json").read_text())
    manifest["input"]["buckets"] = [[64, 96]]
    (folder / "model.json").write_text(json.dumps(manifest))
    profiles = (PlanProfile(bucket=(64, 96), min_batch=1, max_batch=3),)
    calls: list[tuple[int, ...]] = []
    forward = verify.ServingModule.forward
    monkeypatch.setattr(
        verify.ServingModule, "forward", lambda self, images: calls.append(images.shape) or forward(self, images)
    )
    write_plan(folder, onnx_sha256=manifest["files"]["onnx"]["sha256"], profiles=profiles)
    assert verify.main([str(folder)]) == 1
    output = capsys.readouterr().out
    assert [line.split()[0] for line in output.splitlines()[1:]] == ["onnxruntime-cpu"] + 2 * ["tensorrt-fp16-gpu0"]
    assert output.count("FAILED") == 2
    assert calls == [(1, 64, 96, 3)]  # PyTorch computes the image once, whatever the batch size
