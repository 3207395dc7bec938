"""Logging must not fail the service: a real server whose stderr is a full disk or a closed pipe."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from service.model_folder.manifest import FILE_NAME
from tests.support import tiny_model
from tests.support.fake_engine import encoded, striped
from tests.support.server_process import REPOSITORY, running, serve

PNG = encoded(striped(70, 90))
CLIENTS, REQUESTS = 4, 100


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "timed out"
        time.sleep(0.02)


@contextmanager
def server(model: Path, stderr: Any, log: str) -> Generator[tuple[subprocess.Popen[bytes], str], None, None]:
    """`alignseg serve` with this stderr, ready."""
    port = free_port()
    command = [sys.executable, "-m", "alignseg_serve", "serve", "--model", str(model), "--port", str(port)]
    environment = {**os.environ, "ALIGNSEG_LOG": log, "ALIGNSEG_MODEL_POLL_S": "0.05"}
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=stderr)  # noqa: S603
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, f"exit code {process.returncode}"
        try:
            return httpx.get(f"{url}/healthz/ready").is_success
        except httpx.TransportError:
            return False

    try:
        wait_until(ready)
        yield process, url
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def write_version(model: Path, version: str) -> None:
    path = model / FILE_NAME
    changed = json.loads(path.read_text()) | {"version": version}
    (part := path.with_suffix(".part")).write_text(json.dumps(changed))
    part.replace(path)


def served_version(url: str) -> str:
    return str(httpx.get(f"{url}/classes").json()["version"])


def check_service(process: subprocess.Popen[bytes], url: str, model: Path) -> None:
    """All requests succeed, models are replaced, a signal under load drains, the exit code is 0."""
    statuses: list[int] = []
    stop = threading.Event()

    def client() -> None:
        with httpx.Client(base_url=url) as http:
            while not stop.is_set():
                try:
                    statuses.append(http.post("/segment", content=PNG).status_code)
                except httpx.TransportError:  # the server has drained
                    return

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(statuses) >= REQUESTS)
    assert httpx.post(f"{url}/segment", content=b"no image").status_code == 415
    for version in ("2", "3"):
        write_version(model, version)
        wait_until(lambda version=version: served_version(url) == version)  # type: ignore[misc]
    (model / FILE_NAME).write_text("{")
    wait_until(lambda: "refused_model" in httpx.get(f"{url}/healthz/ready").json())
    assert set(statuses) == {200}
    (lost,) = re.findall(r"^alignseg_log_lines_lost (\S+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    assert float(lost) >= REQUESTS
    process.send_signal(signal.SIGTERM)
    code = process.wait(120)
    stop.set()
    for thread in threads:
        thread.join(120)
    assert code == 0
    assert set(statuses) <= {200, 503}  # 503: requests after the signal


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_model.write(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("log", ["json", "text"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_fails_nothing(model: Path, log: str) -> None:
    with Path("/dev/full").open("w") as full, server(model, full, log) as (process, url):
        check_service(process, url, model)


def test_a_pipe_without_reader_fails_nothing(model: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with server(model, writer, "json") as (process, url):
            check_service(process, url, model)
    finally:
        os.close(writer)


def test_a_pipe_that_is_closed_while_serving_fails_nothing(model: Path) -> None:
    with server(model, subprocess.PIPE, "json") as (process, url):
        stderr: IO[bytes] | None = process.stderr
        assert stderr is not None
        assert httpx.post(f"{url}/segment", content=PNG).status_code == 200
        stderr.close()
        check_service(process, url, model)


def read_all(reader: int) -> bytes:
    chunks = []
    while chunk := os.read(reader, 1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


@pytest.mark.parametrize("resumes", [True, False], ids=["resumes", "never reads"])
def test_a_reader_that_stalls_fails_nothing(model: Path, resumes: bool) -> None:
    """`| sleep 1000`: the pipe is open and full, and nobody reads."""
    reader, writer = os.pipe()
    with server(model, writer, "json") as (process, url):
        os.close(writer)
        paths = f"{url}/{'x' * 1500}"  # long lines, so that the pipe is full soon
        with httpx.Client() as http:
            for _ in range(200):
                assert http.get(paths).status_code == 404
            assert http.post(f"{url}/segment", content=PNG).status_code == 200
            write_version(model, "2")
            wait_until(lambda: served_version(url) == "2")
        if resumes:
            drain = threading.Thread(target=read_all, args=(reader,), daemon=True)
            drain.start()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        assert time.monotonic() - began < 60
    os.close(reader) if not resumes else drain.join(120)


def test_a_terminal_that_is_stopped_fails_nothing(model: Path) -> None:
    """Ctrl-S, or a terminal emulator that hangs."""
    terminal, stderr = os.openpty()
    with server(model, stderr, "text") as (process, url), httpx.Client() as http:
        os.close(stderr)
        for _ in range(100):
            assert http.get(f"{url}/{'x' * 1500}").status_code == 404
        assert http.post(f"{url}/segment", content=PNG).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    os.close(terminal)


def test_a_closed_stderr_fails_nothing(model: Path) -> None:
    """`2>&-`: the descriptor itself is closed, and Python has no sys.stderr."""
    port = free_port()
    command = f'exec "{sys.executable}" -m alignseg_serve serve --model "{model}" --port {port} 2>&-'
    process = subprocess.Popen(["sh", "-c", command], cwd=REPOSITORY)  # noqa: S603, S607
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, f"exit code {process.returncode}"
        try:
            return httpx.get(f"{url}/healthz/ready").is_success
        except httpx.TransportError:
            return False

    try:
        wait_until(ready)
        assert httpx.post(f"{url}/segment", content=PNG).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_an_access_line_is_written_soon_although_nothing_follows(model: Path) -> None:
    with running(serve(model), log="json") as process:
        httpx.post(f"{process.url}/segment", content=PNG, headers={"X-Request-Id": "the-only-one"})
        wait_until(lambda: any("the-only-one" in line for line in process.log))
        assert process.stop() == 0
