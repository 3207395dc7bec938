"""Every writer of the project: an interrupted write keeps the old file and leaves no temporary file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from alignseg_serve.segmentation import files as mask_files
from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint
from model_export.onnx_export import exporter, parity
from model_export.tensorrt_build import builder
from service.engines.openvino.compile_cache import CompileCache
from training.loop import run_state


class Interrupted(BaseException):
    """As Ctrl-C: no handler of errors catches it."""


def interrupt_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "save_file", _write_half_to_second_argument)
    checkpoint.save(path, AlignSeg("lite", 3, channels=8))


def interrupt_onnx(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "to_onnx", lambda network: onnx.ModelProto())
    monkeypatch.setattr(exporter, "ServingModule", lambda network: None)
    monkeypatch.setattr(parity, "onnx_runtime", lambda model: None)
    monkeypatch.setattr(parity, "compare", lambda *_: [])
    monkeypatch.setattr(onnx, "save", _write_half_to_second_argument)
    exporter.export(AlignSeg("lite", 3, channels=8), path, [])


def interrupt_timing_cache(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Config:
        def get_timing_cache(self) -> Any:
            raise Interrupted

    class TensorRT:
        runtime = "tensorrt"

    builder.keep_timing_cache(TensorRT(), Config(), path)  # type: ignore[arg-type]


def interrupt_training_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(state: object, file: Any) -> None:
        file.write(b"half")
        raise Interrupted

    monkeypatch.setattr(torch, "save", save)
    run_state.save_state(path, {"step": 2})


def interrupt_mask(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_bytes", _write_half_of_bytes)
    mask_files._write(path, b"a mask")


def interrupt_ray_result(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = pytest.importorskip("alignseg_serve.ray_job.storage")
    monkeypatch.setattr(Path, "write_bytes", _write_half_of_bytes)
    storage.open_path(str(path)).write(b"a mask")


def interrupt_compiled_model(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Compiled:
        def export_model(self) -> bytes:
            return b"a compiled model"

    monkeypatch.setattr(Path, "write_bytes", _write_half_of_bytes)
    cache = CompileCache.__new__(CompileCache)
    monkeypatch.setattr(CompileCache, "_path", lambda self, shape: path)
    cache.store((1, 8, 8, 3), Compiled())


def _write_half_to_second_argument(content: object, path: Path, **_: object) -> None:
    with Path(path).open("wb") as file:
        file.write(b"half")
    raise Interrupted


def _write_half_of_bytes(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise Interrupted


@pytest.mark.parametrize(
    "interrupted_write",
    [
        interrupt_checkpoint,
        interrupt_onnx,
        interrupt_timing_cache,
        interrupt_training_state,
        interrupt_mask,
        interrupt_ray_result,
        interrupt_compiled_model,
    ],
)
def test_an_interrupted_write_keeps_the_old_file_and_leaves_no_temporary_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted_write: Callable[[Path, pytest.MonkeyPatch], None],
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        interrupted_write(path, patched)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
