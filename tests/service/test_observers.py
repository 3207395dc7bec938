"""Observers that raise at every point where one is called: nothing that they observe may fail."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service import observers
from service.app import create_app
from service.inference import pipeline
from service.inference.model_reload import ModelWatcher
from service.inference.served_model import ServedModel
from service.observers import isolated, never_raises
from service.server import fast_reject
from service.server.connections import SlowReaders
from service.settings import Settings
from service.telemetry import logs, request_record, tracing
from service.telemetry.access_log import AccessLog
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Tracer
from tests.support import fake_engine, tiny_model
from tests.support.fake_engine import FakeEngine, encoded, serving, serving_app, striped

PNG = encoded(striped())
POINTS: tuple[tuple[Any, str], ...] = (
    (Metrics, "finished"),
    (Metrics, "engine_call"),
    (Metrics, "set_serving"),
    (Metrics, "model_swap"),
    (AccessLog, "write"),
    (request_record, "note_stage"),
    (request_record, "note_model"),
    (request_record, "note_refused"),
)


def broken(*arguments: object, **options: object) -> Any:
    raise RuntimeError("the observer is broken")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - it is asked over HTTP
            await asyncio.sleep(0.02)


class BrokenTracer(Tracer):
    def __init__(self) -> None:
        """Without a provider."""

    def export(self, *arguments: object) -> str:
        raise RuntimeError("the observer is broken")

    def close(self, timeout_s: float = 1.0) -> None:
        raise RuntimeError("the observer is broken")


async def check_service(client: httpx.AsyncClient, app: FastAPI) -> None:
    """Good and bad requests are answered, batches too, the engine is healthy, metrics are served."""
    responses = await asyncio.gather(*(client.post("/segment", content=PNG) for _ in range(8)))
    assert {response.status_code for response in responses} == {200}
    assert (await client.post("/segment", content=b"no image")).status_code == 415
    assert (await client.get("/healthz/ready")).status_code == 200
    assert (await client.get("/healthz/live")).status_code == 200
    assert (await client.get("/metrics")).status_code == 200
    batcher = app.state.pipeline.model.batcher
    assert (batcher.lost, batcher.healthy, batcher.last_error) == (None, [0], None)
    assert app.state.pipeline.admission.in_flight == 0


@pytest.mark.parametrize(("owner", "name"), POINTS, ids=lambda value: getattr(value, "__name__", value))
async def test_an_observer_that_raises_fails_nothing(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, name, broken)
    async with serving() as (client, app):
        await check_service(client, app)
    assert app.state.pipeline.admission.closed_because is not None


async def test_all_observers_together_fail_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in POINTS:
        monkeypatch.setattr(owner, name, broken)
    app = create_app(Settings(model_poll_s=0), [FakeEngine()], fake_engine.manifest(), tracer=BrokenTracer())
    before = observers.failures()
    async with serving_app(app) as client:
        await check_service(client, app)
        page = (await client.get("/metrics")).text
    (exported,) = re.findall(r"^alignseg_observer_failures (\S+)$", page, re.MULTILINE)
    assert float(exported) > before


async def test_a_gauge_that_fails_is_nan_and_the_others_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "lost_lines", broken)
    async with serving() as (client, _):
        response = await client.get("/metrics")
    assert response.status_code == 200
    assert "alignseg_log_lines_lost NaN" in response.text
    assert "alignseg_in_flight 0.0" in response.text


async def test_a_changed_model_is_taken_although_metrics_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model_swap", "set_serving", "engine_call"):
        monkeypatch.setattr(Metrics, name, broken)
    manifest = tiny_model.write(tmp_path)
    app = create_app(Settings(model=tmp_path, model_poll_s=0.02))
    async with serving_app(app) as client:

        async def serves(version: str) -> bool:
            return bool((await client.get("/classes")).json()["version"] == version)

        async def has_refused() -> bool:
            return "refused_model" in (await client.get("/healthz/ready")).json()

        for version in ("2", "3", "broken", "4"):
            changed = manifest.model_copy(update={"version": version}).model_dump_json()
            (tmp_path / "model.json").write_text("{" if version == "broken" else changed)
            await until(has_refused if version == "broken" else partial(serves, version))


class Holder:
    """A ModelHolder whose replacement fails once."""

    settings = Settings(model_poll_s=0)

    def __init__(self) -> None:
        self.manifest = fake_engine.manifest()
        self.replaced: list[ServedModel] = []
        self.fails = True

    def replace_model(self, model: ServedModel) -> None:
        if self.fails:
            self.fails = False
            raise OSError("too many open files")
        self.replaced.append(model)


async def test_an_error_ends_one_check_of_the_model_folder_not_the_watching(tmp_path: Path) -> None:
    tiny_model.write(tmp_path)
    holder, loaded = Holder(), asyncio.Queue[str]()

    class Model:
        async def warm_up(self) -> None:
            """Nothing to do."""

    watcher = ModelWatcher(holder, tmp_path, lambda manifest: Model(), 0, loaded.put_nowait)  # type: ignore[arg-type,return-value]
    task = asyncio.create_task(watcher.run())
    watcher.check_now()

    async def has_refused() -> bool:
        return watcher.refused is not None and not watcher.busy

    await until(has_refused)
    assert "too many open files" in str(watcher.refused)
    watcher.check_now()
    assert await asyncio.wait_for(loaded.get(), 10) == "swapped"
    assert len(holder.replaced) == 1
    assert watcher.refused is None
    task.cancel()


async def test_a_rejection_below_asgi_is_sent_although_its_observers_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(max_in_flight=1) as (client, app):
        await client.post("/segment", content=PNG)
        for name in ("rejected_early", "record_connection_error"):
            monkeypatch.setattr(Metrics, name, broken)
        for name in ("allows_rejection", "write_rejection"):
            monkeypatch.setattr(AccessLog, name, broken)
        permit = app.state.pipeline.admission.acquire()
        reject = fast_reject.for_app(app)
        assert reject is not None
        rejection = reject.reject(b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", None)
        assert rejection is not None
        assert rejection[0].startswith(b"HTTP/1.1 429 ")
        permit.release()


async def test_a_stalled_reader_is_dropped_although_its_counter_fails() -> None:
    class Transport(asyncio.Transport):
        aborted = False

        def get_write_buffer_size(self) -> int:
            return 1000

        def abort(self) -> None:
            self.aborted = True

    now = [0.0]
    loop: Any = type("Loop", (), {"time": lambda self: now[0], "call_later": lambda self, *arguments: None})()
    readers, first, second = SlowReaders(broken), Transport(), Transport()
    readers.watch(first, loop)
    readers.watch(second, loop)
    now[0] = 100.0
    readers._check(loop)
    assert (first.aborted, second.aborted) == (True, True)


def test_traces_that_cannot_be_set_up_are_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "_otlp_tracer", broken)
    assert tracing.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) is None
    assert "Tracing is off" in caplog.text


def test_only_errors_are_suppressed_and_lines_are_limited(caplog: pytest.LogCaptureFixture) -> None:
    before = observers.failures()
    with caplog.at_level(logging.ERROR, "alignseg.observers"):
        for _ in range(50):
            never_raises(broken)()
    assert observers.failures() == before + 50
    assert len(caplog.messages) <= 2
    with pytest.raises(SystemExit), isolated:
        raise SystemExit
    with pytest.raises(asyncio.CancelledError), isolated:
        raise asyncio.CancelledError


def test_the_stages_of_a_request_are_still_measured() -> None:
    record = request_record.RequestRecord("x")
    token = request_record.set_current(record)
    pipeline._note_stage("decode", 0.0)
    request_record.reset_current(token)
    assert [stage.name for stage in record.stages] == ["decode"]
