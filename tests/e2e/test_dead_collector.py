"""A trace collector that is dead: a real server answers, and drains as quickly as without one."""

import socket
import threading
import time
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest

from tests.support import tiny_model
from tests.support.fake_engine import encoded, striped
from tests.support.server_process import running, serve

PNG = encoded(striped(70, 90))
SHUTDOWN_S = 4.0  # a second for the spans, the rest for a busy machine; it was 9.5 s more than without a collector


@pytest.fixture
def silent_collector() -> Generator[int, None, None]:
    """Accepts every connection and never responds."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                connections.append(listener.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield int(listener.getsockname()[1])
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for connection in connections:
        connection.close()
    thread.join(120)


@pytest.fixture
def refused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_model.write(tmp_path / "model")
    return tmp_path / "model"


def check_shutdown(model: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    with running(serve(model)) as process:
        for _ in range(3):
            assert httpx.post(f"{process.url}/segment", content=PNG).status_code == 200
        began = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - began < SHUTDOWN_S
    assert not [line for line in process.log if "Traceback" in line]


def test_a_collector_that_never_responds_does_not_delay_the_exit(
    model: Path, silent_collector: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_shutdown(model, silent_collector, monkeypatch)


def test_a_collector_that_refuses_connections_does_not_delay_the_exit(
    model: Path, refused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_shutdown(model, refused_port, monkeypatch)


def test_a_collector_that_stops_responding_while_spans_are_sent_does_not_delay_the_exit(
    model: Path, silent_collector: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export is in progress when the signal comes."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    check_shutdown(model, silent_collector, monkeypatch)


def test_an_invalid_opentelemetry_setting_turns_tracing_off(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    check_shutdown(model, 1, monkeypatch)
