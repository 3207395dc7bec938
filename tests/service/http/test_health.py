"""Liveness and readiness: what they report when the engine fails, hangs or is lost."""

import asyncio

import pytest

from service.errors import DeviceLost, EngineError
from tests.support.fake_engine import FakeEngine, Gate, encoded, serving, striped

PNG = encoded(striped())


async def test_a_failed_inference_is_a_500_and_not_ready_until_one_succeeds() -> None:
    engine = FakeEngine()
    async with serving(engine) as (client, _):
        engine.before = failing = _raise(EngineError("the kernel failed."))
        response = await client.post("/segment", content=PNG)
        assert (response.status_code, response.json()["type"]) == (500, "urn:alignseg:problem:inference-failed")
        assert "the kernel failed" in response.json()["detail"]
        assert failing is engine.before
        assert (await client.get("/healthz/ready")).status_code == 503
        engine.before = lambda batch: None
        assert (await client.get("/healthz/ready")).status_code == 200  # readiness runs an inference itself
        assert (await client.post("/segment", content=PNG)).status_code == 200


async def test_a_lost_engine_fails_liveness_and_readiness() -> None:
    engine = FakeEngine()
    async with serving(engine) as (client, _):
        assert (await client.get("/healthz/live")).status_code == 200
        engine.before = _raise(DeviceLost("sticky error 700"))
        response = await client.post("/segment", content=PNG)
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        for path in ("/healthz/live", "/healthz/ready"):
            health = await client.get(path)
            assert (health.status_code, health.json()["type"]) == (503, "urn:alignseg:problem:not-ready")
        assert (await client.post("/segment", content=PNG)).status_code == 503


async def test_a_hanging_engine_fails_readiness() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(before=gate), request_timeout_ms=20) as (client, _):
        gate.opened.clear()
        await client.post("/segment", content=PNG)
        await asyncio.sleep(0.03)
        assert "one engine call has taken" in (await client.get("/health")).json()["detail"]
        gate.opened.set()


async def test_readiness_responds_although_its_own_inference_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.inference.health._PROBE_S", 0.02)
    engine = FakeEngine()
    async with serving(engine) as (client, _):
        engine.before = _raise(EngineError("failed once."))
        await client.post("/segment", content=PNG)
        engine.before = gate = Gate()
        response = await asyncio.wait_for(client.get("/healthz/ready"), 120)
        assert (response.status_code, "failed once" in response.text) == (503, True)
        gate.opened.set()


def _raise(error: Exception) -> object:
    def before(batch: object) -> None:
        raise error

    return before


async def test_readiness_names_the_model() -> None:
    async with serving() as (client, _):
        for path in ("/healthz/ready", "/health"):
            assert (await client.get(path)).json() == {"status": "ready", "model": "fake", "version": "1"}


GET_PATHS = ["/", "/classes", "/docs", "/health", "/healthz/live", "/healthz/ready", "/metrics", "/v2/health/ready"]


@pytest.mark.parametrize("path", GET_PATHS)
async def test_head_is_supported_wherever_get_is(path: str) -> None:
    async with serving() as (client, _):
        head, get = await client.head(path), await client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.headers["content-type"] == get.headers["content-type"]
