import logging
import re
import signal
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from service.admission.controller import AdmissionController, Limits
from service.server.server import LAST_BYTES_S, AdminPort, Server
from service.settings import Settings
from service.telemetry.metrics import Metrics


class StandIn:
    """What the server looks at of a pipeline."""

    def __init__(self) -> None:
        self.health = SimpleNamespace(lost=False)
        self.admission = AdmissionController(Limits(4))

    def stop_admitting(self, because: str = "shutting down") -> None:
        self.admission.close(because)


@pytest.fixture
def pipeline() -> StandIn:
    return StandIn()


@pytest.fixture
def server(pipeline: StandIn) -> Server:
    app: Any = SimpleNamespace(state=SimpleNamespace(pipeline=pipeline, metrics=Metrics()))
    return Server(app, Settings(drain_timeout_s=30))


async def test_stays_while_nothing_is_wrong(server: Server) -> None:
    assert not await server.on_tick(1)


async def test_a_signal_closes_admission_and_waits_for_what_is_inside(server: Server, pipeline: StandIn) -> None:
    permit = pipeline.admission.acquire()
    server.handle_exit(signal.SIGTERM, None)
    assert pipeline.admission.closed_because is not None
    assert not await server.on_tick(1)
    permit.release()
    assert await server.on_tick(2)
    assert (server.exit_code, server.force_exit) == (0, False)


async def test_the_log_tells_when_the_drain_begins_and_when_it_has_ended(
    server: Server, pipeline: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "alignseg.server")
    permit = pipeline.admission.acquire()
    server.handle_exit(signal.SIGTERM, None)
    assert caplog.messages == []  # a signal comes in the middle of anything, another line too
    await server.on_tick(1)
    await server.on_tick(2)
    permit.release()
    await server.on_tick(3)
    began, ended = caplog.messages
    assert re.fullmatch(r"draining: requests in flight: 1; waiting for them until \d\d:\d\d:\d\d UTC", began)
    assert re.fullmatch(r"drained in \d\.\d s: all requests have their answers", ended)


async def test_a_second_signal_leaves_now(server: Server, pipeline: StandIn) -> None:
    pipeline.admission.acquire()
    server.handle_exit(signal.SIGINT, None)
    server.handle_exit(signal.SIGINT, None)
    assert await server.on_tick(1)
    assert server.force_exit


async def test_the_drain_ends_in_time(pipeline: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    app: Any = SimpleNamespace(state=SimpleNamespace(pipeline=pipeline, metrics=Metrics()))
    server = Server(app, Settings(drain_timeout_s=0))
    pipeline.admission.acquire()
    with caplog.at_level(logging.INFO, "alignseg.server"):
        server.handle_exit(signal.SIGTERM, None)
        assert await server.on_tick(1)
    assert server.exit_code == 1
    begun, told = caplog.messages
    assert begun.startswith("draining: requests in flight: 1; waiting for them until ")
    assert re.fullmatch(r"drained for \d\.\d s \(ALIGNSEG_DRAIN_TIMEOUT_S\); requests that are cut off: 1", told)


async def test_a_lost_engine_ends_the_process_with_1(server: Server, pipeline: StandIn) -> None:
    pipeline.health.lost = True
    assert await server.on_tick(1)
    assert server.exit_code == 1


async def test_the_admin_port_keeps_the_time_and_does_not_wait_for_ever(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = AdminPort(server._app, Settings(host="127.0.0.1", admin_port=0))
    server._admin = admin
    await admin.open()
    port = admin._server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        monkeypatch.setattr("uvicorn.server.time.time", lambda: 0.0)
        server.config.load()
        await server.on_tick(10)
        monkeypatch.undo()
        answer = await client.get("/nothing")
    await admin.close()
    assert answer.headers["date"] == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert admin._server.config.timeout_graceful_shutdown == LAST_BYTES_S


def test_a_signal_while_loading_leaves() -> None:
    app: Any = SimpleNamespace(state=SimpleNamespace(metrics=Metrics()))
    server = Server(app, Settings())
    server.handle_exit(signal.SIGTERM, None)
    assert server.should_exit


def test_memory_is_kept_in_few_arenas() -> None:
    import platform
    import subprocess
    import sys

    command = [
        sys.executable,
        "-c",
        "from service.server.process import limit_malloc_arenas; print(limit_malloc_arenas())",
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    assert told == str(platform.libc_ver()[0] == "glibc")
