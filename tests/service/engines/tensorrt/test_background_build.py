"""The build of a missing engine, in a process of its own."""

import logging
import sys
from pathlib import Path

import pytest

from service.engines.tensorrt import background_build


@pytest.mark.parametrize(
    ("code", "level"), [("print('written x')", "INFO"), ("raise SystemExit('no TensorRT')", "ERROR")]
)
def test_a_background_build_runs_once_a_model_and_logs_its_result(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, code: str, level: str
) -> None:
    with caplog.at_level(logging.INFO, "alignseg.build"):
        for onnx in ("a" * 64, "b" * 64):  # the second model replaced the first
            thread = background_build.start(tmp_path, onnx, [sys.executable, "-c", code])
            assert thread is not None
            thread.join(120)
            assert caplog.records[-1].levelname == level
            assert caplog.records[-1].message.endswith(("written x", "no TensorRT"))
        assert background_build.start(tmp_path, "a" * 64, [sys.executable, "-c", code]) is None
    assert "was already started" in caplog.records[-1].message
