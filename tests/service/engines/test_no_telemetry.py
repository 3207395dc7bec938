"""Telemetry of a runtime begins with an identifier in the home folder: there must be none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import tiny_model

REPOSITORY = Path(__file__).resolve().parents[3]
INFER = """
import sys, numpy as np
from service.model_folder import manifest
from service.engines.selection import open_engine
from service.settings import Settings

settings = Settings(model=sys.argv[1], engine=sys.argv[2])
engine = open_engine(settings, manifest.load(settings.model))
assert engine.infer(np.zeros((1, 48, 64, 3), np.uint8)).ids.shape == (1, 48, 64)
"""
EXPORT = """
import model_export.onnx_export.parity, openvino, onnxruntime, sys
onnxruntime.InferenceSession(sys.argv[1] + '/model.onnx')
"""


@pytest.mark.parametrize(
    ("code", "engine"),
    [(INFER, "onnxruntime-cpu"), (INFER, "openvino-cpu"), (EXPORT, "both")],
    ids=["ort", "openvino", "export"],
)
def test_runtimes_leave_no_identifier(code: str, engine: str, tmp_path: Path) -> None:
    model, home = tmp_path / "model", tmp_path / "home"
    tiny_model.write(model)
    home.mkdir()
    # Without CI and the like, where these libraries send nothing anyway.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_CACHE_HOME": str(tmp_path / "cache")}  # our own
    command = [sys.executable, "-c", code, str(model), engine]
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, timeout=300)  # noqa: S603
    assert [path for path in home.rglob("*") if path.is_file()] == []
