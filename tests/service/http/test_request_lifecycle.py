"""Deadlines, disconnects and what they leave behind."""

import asyncio
import time
from collections.abc import Callable

import numpy as np
import pytest

from tests.support.fake_engine import FakeEngine, Gate, encoded, opened, serving, striped

PNG = encoded(striped())


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "", "1e3", "\u0661", "1" * 10])
async def test_an_invalid_timeout_header_is_rejected(value: str) -> None:
    async with serving() as (client, _):
        headers = [(b"x-request-timeout-ms", value.encode())]
        response = await client.post("/segment", content=PNG, headers=headers)
    assert response.status_code == 400
    assert "positive whole number of milliseconds" in response.json()["detail"]


async def test_a_client_may_set_a_shorter_timeout_than_the_server() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(before=gate)) as (client, _):
        gate.opened.clear()
        began = time.monotonic()
        response = await client.post("/segment", content=PNG, headers={"X-Request-Timeout-Ms": "50"})
        assert time.monotonic() - began < 60
        gate.opened.set()
        assert response.status_code == 504
        ok = await client.post("/segment", content=PNG, headers={"X-Request-Timeout-Ms": "20000"})
        assert ok.status_code == 200


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    pytest.fail("the condition was not met within 5 s")


NOISE = encoded(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8), "JPEG")


async def test_a_corrupt_image_is_rejected_while_the_engine_is_busy() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(max_batch=1, before=gate)) as (client, _):
        gate.entered.clear()
        gate.opened.clear()
        good = asyncio.create_task(client.post("/segment", content=PNG))
        await asyncio.to_thread(gate.entered.wait, 120)
        bad = await asyncio.wait_for(client.post("/segment", content=NOISE[:-300]), 120)
        assert (bad.status_code, good.done()) == (400, False)
        gate.opened.set()
        assert (await good).status_code == 200


async def test_a_missed_deadline_is_a_504_at_once() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(before=gate), request_timeout_ms=50) as (client, app):
        gate.opened.clear()
        began = time.monotonic()
        response = await client.post("/segment", content=PNG)
        assert time.monotonic() - began < 60
        assert (response.status_code, response.json()["type"]) == (504, "urn:alignseg:problem:deadline-exceeded")
        assert app.state.pipeline.admission.in_flight == 1  # the engine is still busy with it
        gate.opened.set()
        await until(lambda: app.state.pipeline.admission.in_flight == 0)


async def test_the_work_of_a_disconnected_client_is_cancelled() -> None:
    gate = Gate()
    gate.opened.set()
    engine = FakeEngine(max_batch=1, before=gate)
    async with serving(engine) as (client, app):
        gate.entered.clear()
        gate.opened.clear()
        stays = asyncio.create_task(client.post("/segment", content=PNG))
        await asyncio.to_thread(gate.entered.wait, 120)
        await asyncio.wait_for(disconnect_after_the_body(app), 120)
        await until(lambda: app.state.pipeline.admission.in_flight == 1)
        gate.opened.set()
        assert (await stays).status_code == 200
    assert len(engine.batches) == 3  # two to warm up, one that stayed


async def disconnect_after_the_body(app: object) -> None:
    messages = [{"type": "http.request", "body": PNG}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, object]:
        if len(messages) == 1:
            await asyncio.sleep(0.05)
        return messages.pop(0)

    async def send(message: dict[str, object]) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": "/segment", "headers": [], "query_string": b"", "state": {}}
    await app(scope, receive, send)  # type: ignore[operator]


async def test_forty_concurrent_requests_get_their_own_results() -> None:
    async with serving() as (client, _):
        images = [np.full((16, 24, 3), i, dtype=np.uint8) for i in range(40)]
        responses = await asyncio.gather(
            *(client.post("/segment", content=encoded(p), headers={"Accept": "image/png"}) for p in images)
        )
    assert [int(np.asarray(opened(a.content))[0, 0]) for a in responses] == [i % 4 for i in range(40)]


async def test_a_request_cancelled_at_the_end_of_the_drain_gets_a_503() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(before=gate)) as (client, app):
        gate.entered.clear()
        gate.opened.clear()
        request = asyncio.create_task(client.post("/segment", content=PNG))
        await asyncio.to_thread(gate.entered.wait, 120)
        app.state.pipeline.stop_admitting()
        request.cancel()  # as uvicorn does when the drain has timed out
        response = await asyncio.wait_for(request, 120)
        gate.opened.set()
    assert (response.status_code, response.json()["type"]) == (503, "urn:alignseg:problem:not-ready")
    assert "The server shut down before the response was ready" in response.json()["detail"]
