"""Requests rejected by their heads, and the limits on what is in flight."""

import asyncio
from collections.abc import AsyncGenerator

import numpy as np
import pytest
from fastapi import FastAPI

from tests.support.fake_engine import FakeEngine, Gate, encoded, serving, striped

PNG = encoded(striped())


@pytest.mark.parametrize(
    ("request_", "status", "slug"),
    [({"headers": {f"x-{i}": "1" for i in range(101)}}, 431, "headers-too-large"),
     ({"headers": {"x": "1" * 33_000}}, 431, "headers-too-large"),
     ({"params": {"include": "a" * 9000}}, 414, "uri-too-long")],
)  # fmt: skip
async def test_a_head_over_a_limit_is_rejected(request_: dict[str, dict[str, str]], status: int, slug: str) -> None:
    async with serving() as (client, _):
        response = await client.post("/segment", content=PNG, **request_)  # type: ignore[arg-type]
    assert (response.status_code, response.json()["type"]) == (status, f"urn:alignseg:problem:{slug}")


async def test_cors_headers_are_sent_only_to_configured_origins() -> None:
    preflight_headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    async with serving() as (client, _):
        assert (await client.options("/segment", headers=preflight_headers)).status_code == 405
        assert "access-control-allow-origin" not in (await client.get("/classes", headers=preflight_headers)).headers
    async with serving(cors_origins="https://a.example, https://b.example", api_keys="secret") as (client, _):
        preflight = await client.options("/segment", headers=preflight_headers)
        refused = await client.post("/segment", content=PNG, headers={"Origin": "https://a.example"})
        other = await client.post("/segment", content=PNG, headers={"Origin": "https://evil.example"})
    assert preflight.headers["access-control-allow-origin"] == "https://a.example"
    assert refused.headers["access-control-allow-origin"] == "https://a.example"  # so that its page can read the error
    assert "access-control-allow-credentials" not in preflight.headers
    assert "access-control-allow-origin" not in other.headers


async def test_decoded_pixels_in_flight_are_limited() -> None:
    gate = Gate()
    gate.opened.set()
    engine = FakeEngine(max_batch=1, before=gate)
    large = encoded(striped(100, 100))
    async with serving(engine, max_pixels=10_000, max_pixels_in_flight=15_000) as (client, app):
        gate.entered.clear()
        gate.opened.clear()
        first = asyncio.create_task(client.post("/segment", content=large))
        await asyncio.to_thread(gate.entered.wait, 120)
        second = await client.post("/segment", content=large)
        gate.opened.set()
        assert (await first).status_code == 200
        assert (await client.post("/segment", content=large)).status_code == 200
        assert app.state.pipeline.pixels.reserved == 0
    assert second.status_code == 429
    assert "ALIGNSEG_MAX_PIXELS_IN_FLIGHT" in second.json()["detail"]


async def test_body_bytes_in_flight_are_limited() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(before=gate), max_body_bytes=1000, max_bytes_in_flight=1050) as (client, _):
        gate.entered.clear()
        gate.opened.clear()
        first = asyncio.create_task(client.post("/segment", content=PNG))
        await asyncio.to_thread(gate.entered.wait, 120)

        async def without_content_length() -> object:
            yield PNG

        second = await client.post("/segment", content=without_content_length())  # counts as 1000
        third = await client.post("/segment", content=PNG[:20])
        gate.opened.set()
        assert (await first).status_code == 200
    assert (second.status_code, third.status_code) == (429, 400)
    assert "ALIGNSEG_MAX_BYTES_IN_FLIGHT" in second.json()["detail"]


async def test_at_capacity_a_request_is_rejected_before_its_body_is_read() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(before=gate), max_in_flight=2) as (client, _):
        gate.entered.clear()
        gate.opened.clear()
        in_flight = [asyncio.create_task(client.post("/segment", content=PNG)) for _ in range(2)]
        await asyncio.to_thread(gate.entered.wait, 120)
        read: list[int] = []

        async def body() -> AsyncGenerator[bytes, None]:
            read.append(1)
            yield PNG

        refused = await client.post("/segment", content=body())
        gate.opened.set()
        assert [r.status_code for r in await asyncio.gather(*in_flight)] == [200, 200]
        assert (await client.post("/segment", content=PNG)).status_code == 200
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["type"] == "urn:alignseg:problem:overloaded"
    assert refused.json()["retry_after_s"] > 0
    assert read == []


async def test_a_draining_server_rejects_new_requests_and_is_not_ready() -> None:
    async with serving() as (client, app):
        app.state.pipeline.stop_admitting()
        response = await client.post("/segment", content=PNG)
        assert (response.status_code, response.json()["type"]) == (503, "urn:alignseg:problem:not-ready")
        assert (await client.get("/healthz/ready")).status_code == 503
        assert (await client.get("/healthz/live")).status_code == 200


async def test_uploads_without_a_length_are_accepted_as_those_with_one() -> None:
    """As many as fit into max_in_flight at once, by the bytes that they have and not by what they might have."""
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(max_batch=1, before=gate), max_in_flight=20) as (client, app):
        gate.opened.clear()
        uploads = [asyncio.create_task(client.post("/segment", content=in_chunks(PNG))) for _ in range(20)]
        await until_in_flight(app, 20)
        gate.opened.set()
        assert [response.status_code for response in await asyncio.gather(*uploads)] == [200] * 20
        assert app.state.pipeline.admission.bytes == 0


async def test_an_upload_without_a_length_counts_as_it_grows() -> None:
    large, mib = encoded(np.zeros((1000, 1000, 3), np.uint8), "BMP"), 1024 * 1024  # 3 MB
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(before=gate), max_bytes_in_flight=4 * mib) as (client, app):
        assert (await client.post("/segment", content=in_chunks(large))).status_code == 200
        gate.entered.clear()
        gate.opened.clear()
        first = asyncio.create_task(client.post("/segment", content=in_chunks(large)))
        await asyncio.to_thread(gate.entered.wait, 120)
        assert app.state.pipeline.admission.bytes == len(large)
        second = await client.post("/segment", content=in_chunks(large))
        small = asyncio.create_task(client.post("/segment", content=in_chunks(PNG)))
        await until_in_flight(app, 2)
        gate.opened.set()
        assert ((await first).status_code, (await small).status_code) == (200, 200)
        assert app.state.pipeline.admission.bytes == app.state.pipeline.admission.in_flight == 0
    assert second.status_code == 429
    assert "ALIGNSEG_MAX_BYTES_IN_FLIGHT" in second.json()["detail"]
    assert int(second.headers["retry-after"]) >= 1


async def in_chunks(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]
        await asyncio.sleep(0)


async def until_in_flight(app: FastAPI, count: int) -> None:
    for _ in range(5000):
        if app.state.pipeline.admission.in_flight == count:
            return
        await asyncio.sleep(0.001)
    pytest.fail(f"{app.state.pipeline.admission.in_flight} requests are in flight, expected {count}")
