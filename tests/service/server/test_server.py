"""Drain, exit codes and the admin port, with a stub pipeline."""

import asyncio
import logging
import re
import signal
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from service.admission.controller import AdmissionController, Limits
from service.admission.pixel_budget import PixelBudget
from service.server import admin_port
from service.server.admin_port import AdminPort
from service.server.server import Server
from service.server.stop_signals import INTERRUPTED
from service.settings import Settings
from service.telemetry.metrics import Metrics


class StubPipeline:
    """What the server needs of a pipeline."""

    def __init__(self) -> None:
        self.health = SimpleNamespace(lost=False)
        self.admission = AdmissionController(Limits(4))
        self.pixels = PixelBudget(10**6, lambda: 1.0)

    def stop_admitting(self, because: str = "shutting down") -> None:
        self.admission.close(because)


@pytest.fixture
def pipeline() -> StubPipeline:
    return StubPipeline()


@pytest.fixture
def server(pipeline: StubPipeline) -> Server:
    app: Any = SimpleNamespace(state=SimpleNamespace(pipeline=pipeline, metrics=Metrics()))
    return Server(app, Settings(drain_timeout_s=30))


async def test_a_healthy_server_goes_on(server: Server) -> None:
    assert not await server.on_tick(1)


async def test_a_signal_closes_admission_and_waits_for_requests_in_flight(
    server: Server, pipeline: StubPipeline
) -> None:
    permit = pipeline.admission.acquire()
    server.handle_exit(signal.SIGTERM, None)
    assert pipeline.admission.closed_because is not None
    assert not await server.on_tick(1)
    permit.release()
    assert await server.on_tick(2)
    assert (server.exit_code, server.force_exit) == (0, False)


async def test_the_log_says_when_the_drain_begins_and_ends(
    server: Server, pipeline: StubPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "alignseg.server")
    permit = pipeline.admission.acquire()
    server.handle_exit(signal.SIGTERM, None)
    assert caplog.messages == []  # a signal may interrupt anything, also the logging of another line
    await server.on_tick(1)
    await server.on_tick(2)
    permit.release()
    await server.on_tick(3)
    began, ended = caplog.messages
    assert re.fullmatch(r"draining: 1 request in flight, at most until \d\d:\d\d:\d\d UTC", began)
    assert re.fullmatch(r"drained in \d\.\d s: all requests are completed", ended)


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes with which the process would have ended at once."""
    codes: list[int] = []
    monkeypatch.setattr("service.server.server.os._exit", codes.append)
    return codes


def test_a_second_sigint_ends_at_once(server: Server, pipeline: StubPipeline, exits: list[int]) -> None:
    pipeline.admission.acquire()
    server.handle_exit(signal.SIGINT, None)
    assert exits == []
    server.handle_exit(signal.SIGINT, None)
    assert exits == [INTERRUPTED]


@pytest.mark.parametrize(
    "signals",
    [[signal.SIGTERM] * 5, [signal.SIGINT, signal.SIGTERM], [signal.SIGTERM, signal.SIGINT, signal.SIGTERM]],
    ids=lambda signals: " ".join(one.name for one in signals),
)
async def test_any_number_of_sigterms_is_one_drain(
    server: Server, pipeline: StubPipeline, exits: list[int], signals: list[signal.Signals]
) -> None:
    permit = pipeline.admission.acquire()
    for one in signals:
        server.handle_exit(one, None)
        assert not await server.on_tick(1)
    assert not server.force_exit
    permit.release()
    assert await server.on_tick(2)
    server.handle_exit(signal.SIGTERM, None)  # while it shuts down
    assert (server.exit_code, server.force_exit, exits) == (0, False, [])


async def test_a_drain_that_takes_too_long_exits_with_1(
    pipeline: StubPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    app: Any = SimpleNamespace(state=SimpleNamespace(pipeline=pipeline, metrics=Metrics()))
    server = Server(app, Settings(drain_timeout_s=0))
    for _ in range(2):
        pipeline.admission.acquire()
    with caplog.at_level(logging.INFO, "alignseg.server"):
        server.handle_exit(signal.SIGTERM, None)
        assert await server.on_tick(1)
    assert server.exit_code == 1
    began, ended = caplog.messages
    assert began.startswith("draining: 2 requests in flight, at most until ")
    assert re.fullmatch(r"drain timed out after \d\.\d s \(ALIGNSEG_DRAIN_TIMEOUT_S\): 2 requests not completed", ended)


async def test_a_lost_engine_exits_with_1(server: Server, pipeline: StubPipeline) -> None:
    pipeline.health.lost = True
    assert await server.on_tick(1)
    assert server.exit_code == 1


async def test_the_admin_port_updates_its_date_header(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = AdminPort(server._app, Settings(host="127.0.0.1", admin_port=0))
    server._admin = admin
    await admin.open()
    port = admin._server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        monkeypatch.setattr("uvicorn.server.time.time", lambda: 0.0)
        server.config.load()
        await server.on_tick(10)
        monkeypatch.undo()
        response = await client.get("/nothing")
    await admin.close()
    assert response.headers["date"] == "Thu, 01 Jan 1970 00:00:00 GMT"


async def test_the_admin_port_closes_although_a_probe_hangs(
    server: Server, pipeline: StubPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_port, "FLUSH_TIMEOUT_S", 0.2)
    probed = asyncio.Event()

    async def why_not_ready() -> str | None:
        probed.set()
        await asyncio.Event().wait()
        return None

    pipeline.health.why_not_ready = why_not_ready
    admin = AdminPort(server._app, Settings(host="127.0.0.1", admin_port=0))
    await admin.open()
    port = admin._server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz/ready HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.wait_for(probed.wait(), 5)
    await asyncio.wait_for(admin.close(), 5)
    assert b"200 OK" not in await asyncio.wait_for(reader.read(), 5)
    writer.close()


def test_a_signal_while_loading_exits() -> None:
    app: Any = SimpleNamespace(state=SimpleNamespace(metrics=Metrics()))
    server = Server(app, Settings())
    server.handle_exit(signal.SIGTERM, None)
    server.handle_exit(signal.SIGTERM, None)
    assert server.should_exit
    assert not server.force_exit
