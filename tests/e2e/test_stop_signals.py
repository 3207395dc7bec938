"""Signals to a real server: any number of SIGTERMs is one drain, only a second SIGINT ends at once."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest

from benchmarks.harness import SCENE
from tests.support import tiny_model
from tests.support.server_process import REPOSITORY, Process, running, serve, stand_in

TERM, INT = signal.SIGTERM, signal.SIGINT
BODY = SCENE.read_bytes()


def stop_while_busy(process: Process, send: Callable[[], None], clients: int = 4) -> Counter[int]:
    """Send signals while all clients wait for responses. Returns how many got which status."""
    statuses: list[int] = []

    def request() -> None:
        try:
            statuses.append(httpx.post(f"{process.url}/segment", content=BODY, timeout=60).status_code)
        except httpx.TransportError:
            statuses.append(0)

    threads = [threading.Thread(target=request) for _ in range(clients)]
    for thread in threads:
        thread.start()
    process.wait_until_in_flight(clients)
    send()
    for thread in threads:
        thread.join(60)
    return Counter(statuses)


@pytest.mark.parametrize(
    "signals", [[TERM] * 9, [INT, TERM], [TERM, INT, TERM]],
    ids=lambda signals: "-".join(one.name for one in signals[:3]),
)  # fmt: skip
@pytest.mark.parametrize("pause_s", [0.0, 0.1])
def test_several_signals_are_one_drain(signals: Sequence[signal.Signals], pause_s: float) -> None:
    with running(stand_in(500, warm_ms=1)) as process:

        def send() -> None:
            for one in signals:
                if process.process.poll() is None:
                    process.process.send_signal(one)
                time.sleep(pause_s)

        assert stop_while_busy(process, send) == {200: 4}
        assert process.wait() == 0
    assert not [line for line in process.log if "Traceback" in line]


def test_signals_until_the_process_has_ended_change_nothing() -> None:
    """Also while the application shuts down and while Python ends."""
    with running(stand_in(500, warm_ms=1)) as process:

        def send() -> None:
            while process.process.poll() is None:
                process.process.send_signal(TERM)
                time.sleep(0.002)

        assert stop_while_busy(process, send) == {200: 4}
        assert process.wait() == 0
    assert not [line for line in process.log if "Traceback" in line]


def test_a_second_sigint_ends_at_once() -> None:
    with running(stand_in(60_000, warm_ms=1)) as process:

        def send() -> None:
            process.process.send_signal(INT)
            time.sleep(0.3)
            assert process.process.poll() is None
            process.process.send_signal(INT)
            assert process.process.wait(5) == 130

        assert stop_while_busy(process, send) == {0: 4}
    assert not [line for line in process.log if "Traceback" in line]


@pytest.mark.parametrize("stop_signal", [TERM, INT], ids=lambda one: one.name)
@pytest.mark.parametrize("delay_s", [0.3, 0.7, 1.4])
def test_a_signal_before_startup_has_finished_exits_with_0(
    tmp_path: Path, stop_signal: signal.Signals, delay_s: float
) -> None:
    tiny_model.write(tmp_path / "model")
    process = subprocess.Popen(  # noqa: S603
        serve(tmp_path / "model"), cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for_handler(process.pid)
    time.sleep(delay_s - 0.3)
    for _ in range(2 if stop_signal == TERM else 1):
        os.killpg(process.pid, stop_signal)
    _, log = process.communicate(timeout=30)
    assert process.returncode == 0, log
    assert "Traceback" not in log


def wait_for_handler(pid: int) -> None:
    """Wait until the process handles SIGTERM: before that Python itself is starting, and no code of ours runs."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():  # not Linux
        time.sleep(0.3)
        return
    until = time.monotonic() + 20
    while time.monotonic() < until:
        caught = next((line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt")), "0")
        if int(caught, 16) >> (TERM - 1) & 1:
            return
        time.sleep(0.01)
    pytest.fail("SIGTERM is not handled")


def test_a_signal_while_the_model_warms_up_exits_with_0() -> None:
    process = subprocess.Popen(  # noqa: S603
        stand_in(1, warm_ms=1500), cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
    )
    wait_for_handler(process.pid)
    for _ in range(3):
        process.send_signal(TERM)
    _, log = process.communicate(timeout=30)
    assert process.returncode == 0, log
    assert "Traceback" not in log


def test_sighup_while_the_model_warms_up_is_ignored() -> None:
    process = subprocess.Popen(  # noqa: S603
        stand_in(1, warm_ms=1500), cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
    )
    wait_for_handler(process.pid)
    for _ in range(3):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(TERM)
    _, log = process.communicate(timeout=30)
    assert process.returncode == 0, log


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_a_signal_to_the_process_group_of_make_is_one_drain(tmp_path: Path) -> None:
    """make forwards its own SIGTERM, so the server gets two."""
    command = shlex.join(stand_in(500, warm_ms=1))
    (tmp_path / "Makefile").write_text(f"serve:\n\tcd {REPOSITORY} && exec {command}\n")
    new_group = "import os; os.setsid(); os.execlp('make', 'make', '--silent', 'serve')"
    with running([sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); {new_group}"]) as process:
        statuses = stop_while_busy(process, lambda: os.killpg(process.process.pid, TERM), clients=4)
        process.wait()
    log = "".join(process.log)
    assert statuses == {200: 4}
    assert "all requests are completed" in log
    assert "Traceback" not in log
    assert "Error" not in log  # make's line for a recipe that does not exit with 0
