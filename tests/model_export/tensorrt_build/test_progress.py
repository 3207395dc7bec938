"""A build reports its progress, ends at Ctrl-C, and waits for another build of the same model."""

import os
import signal
import threading
from pathlib import Path

import pytest

from model_export.files import exclusive_lock
from model_export.tensorrt_build.library import NoTensorRTError, load
from model_export.tensorrt_build.progress import Progress, report_progress


def test_progress_is_the_share_of_nested_phases() -> None:
    now, reports = [0.0], []
    progress = Progress(reports.append, lambda: now[0])
    progress.start("Building engine", 4)
    progress.step("Building engine", 0)
    assert progress.share == 0.25
    progress.start("Timing tactics", 2)
    assert progress.step("Timing tactics", 0)
    assert progress.share == pytest.approx(0.25 + 0.25 / 2)
    assert reports == []
    now[0] = 6.0
    progress.step("Timing tactics", 1)
    assert reports == ["50 %, 6 s: timing tactics"]
    progress.finish("Timing tactics")
    progress.step("Building engine", 1)
    assert progress.share == 0.5
    progress.stopped = True
    assert not progress.step("Building engine", 2)


def test_ctrl_c_stops_a_build() -> None:
    try:
        library = load("tensorrt_rtx")
    except NoTensorRTError as error:
        pytest.skip(str(error))
    config = library.trt.Builder(library.logger).create_builder_config()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), report_progress(library, config, lambda text: None):
        assert config.progress_monitor.step_complete("a phase", 0)
        os.kill(os.getpid(), signal.SIGINT)
        assert not config.progress_monitor.step_complete("a phase", 1)
        raise RuntimeError("TensorRT could not build the engine")
    assert signal.getsignal(signal.SIGINT) is before


def test_one_build_waits_for_the_other(tmp_path: Path) -> None:
    events: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with exclusive_lock(tmp_path / "engines" / ".building", lambda: events.append("first waits")):
            entered.set()
            assert leave.wait(120)
            events.append("first ends")

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(120)
    with exclusive_lock(tmp_path / "engines" / ".building", lambda: (events.append("second waits"), leave.set())):
        events.append("second runs")
    thread.join()
    assert events == ["second waits", "first ends", "second runs"]
