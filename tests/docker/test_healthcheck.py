"""docker/healthcheck.py: its exit code, and when it stops the server."""

import importlib.util
import signal
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[2] / "docker" / "healthcheck.py"


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("healthcheck", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("live", "ready", "code", "stops"),
    [(200, 200, 0, False), (200, 503, 1, False), (503, 503, 1, True), (None, None, 1, False)],
)
def test_only_a_server_that_cannot_recover_is_stopped(
    check: Any, monkeypatch: pytest.MonkeyPatch, live: int | None, ready: int | None, code: int, stops: bool
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(check.os, "kill", lambda pid, number: killed.append((pid, number)))
    monkeypatch.setattr(check, "status", {"/healthz/live": live, "/healthz/ready": ready}.get)
    assert check.main() == code
    assert killed == ([(1, signal.SIGTERM)] if stops else [])


def test_without_a_server_there_is_no_status(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "BASE", "http://127.0.0.1:1")
    assert check.status("/healthz/live") is None
