"""Every way an engine can fail, through HTTP: every request gets a response, other images succeed, health is right."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import numpy as np
import pytest

from service.admission.controller import AdmissionController
from service.errors import DeviceLost, EngineOutOfMemory
from service.types import Inference, UInt8Array
from tests.support.fake_engine import FakeEngine, Gate, encoded, serving, striped

GOOD = encoded(striped())
POISON = encoded(np.full((16, 24, 3), 250, dtype=np.uint8))
Before = Callable[[UInt8Array], object]


def on_poison(do: Before) -> Before:
    """A fault that one image causes, alone or with others in its batch."""
    return lambda batch: do(batch) if (batch == 250).all(axis=(1, 2, 3)).any() else None


def fail(error: Exception) -> Before:
    def before(_batch: UInt8Array) -> None:
        raise error

    return before


@dataclass
class Responses:
    """The responses for one batch: to the poisoned image, to the others, and of the health checks afterwards."""

    poisoned: httpx.Response
    others: list[httpx.Response]
    ready: httpx.Response
    live: httpx.Response
    later: httpx.Response


async def send_batch(engine: FakeEngine, fault: Before) -> Responses:
    """Send six images that form one batch, the third of them poisoned."""
    gate = Gate()
    gate.opened.set()
    engine.before = gate
    async with serving(engine) as (client, _):
        gate.entered.clear()
        gate.opened.clear()
        first = asyncio.create_task(client.post("/segment", content=GOOD))
        await asyncio.to_thread(gate.entered.wait, 120)
        bodies = [GOOD, GOOD, POISON, GOOD, GOOD, GOOD]
        tasks = [asyncio.create_task(client.post("/segment", content=body)) for body in bodies]
        await asyncio.sleep(0.1)  # decoded and queued
        engine.before = fault
        gate.opened.set()
        done = await asyncio.wait_for(asyncio.gather(*tasks), 20)
        assert (await first).status_code == 200
        later = await client.post("/segment", content=GOOD)
        return Responses(
            done.pop(2), done, await client.get("/healthz/ready"), await client.get("/healthz/live"), later
        )


@pytest.mark.parametrize(
    "fault",
    [ValueError("a bug"), RuntimeError("CUDA error 700"), MemoryError(), EngineOutOfMemory("full"), KeyError("x")],
    ids=repr,
)
async def test_an_exception_fails_one_image_alone(fault: Exception) -> None:
    responses = await send_batch(FakeEngine(max_batch=8), on_poison(fail(fault)))
    assert responses.poisoned.status_code == 500
    assert responses.poisoned.json()["type"] == "urn:alignseg:problem:inference-failed"
    assert [r.status_code for r in responses.others] == [200] * 5
    assert (responses.ready.status_code, responses.live.status_code, responses.later.status_code) == (200, 200, 200)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda ids: ids[:, :1], lambda ids: ids.astype(np.int64), lambda ids: ids[..., None], lambda ids: ids[:0],
        lambda ids: None, lambda ids: "ids",
    ],
    ids=["height", "dtype", "rank", "count", "nothing", "text"],
)  # fmt: skip
async def test_an_output_of_the_wrong_shape_or_dtype_fails_one_image_alone(
    wrong: Callable[[UInt8Array], UInt8Array],
) -> None:
    class Wrong(FakeEngine):
        def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
            right = super().infer(batch, with_confidence)
            return Inference(wrong(right.ids)) if (batch == 250).all(axis=(1, 2, 3)).any() else right

    responses = await send_batch(Wrong(max_batch=8), lambda batch: None)
    assert responses.poisoned.status_code == 500
    assert "expected uint8" in responses.poisoned.json()["detail"] or "failed" in responses.poisoned.json()["detail"]
    assert [r.status_code for r in responses.others] == [200] * 5
    assert (responses.ready.status_code, responses.live.status_code, responses.later.status_code) == (200, 200, 200)


async def test_out_of_memory_of_large_batches_fails_no_image() -> None:
    def too_large(batch: UInt8Array) -> None:
        if len(batch) > 2:
            raise EngineOutOfMemory("no room for more than two")

    responses = await send_batch(FakeEngine(max_batch=8), too_large)
    assert [r.status_code for r in (responses.poisoned, *responses.others, responses.later)] == [200] * 7


async def test_a_lost_engine_fails_all_images_and_liveness() -> None:
    responses = await send_batch(FakeEngine(max_batch=8), fail(DeviceLost("sticky error 700")))
    all_responses = [responses.poisoned, *responses.others, responses.later]
    assert [r.status_code for r in all_responses] == [503] * 7
    assert all("sticky error 700" in r.json()["detail"] for r in all_responses)
    assert (responses.ready.status_code, responses.live.status_code) == (503, 503)


async def test_a_hung_engine_delays_no_response_past_the_deadline_and_fails_liveness() -> None:
    gate = Gate()
    gate.opened.set()
    engine = FakeEngine(max_batch=2, before=gate)
    async with serving(engine, engine_hang_s=0.5) as (client, app):
        pipeline = app.state.pipeline
        gate.entered.clear()
        gate.opened.clear()
        began = time.monotonic()
        assert (await client.get("/healthz/live")).status_code == 200
        # Only these have a short deadline: the response at the end may take as long as it takes on a busy machine.
        headers = {"X-Request-Timeout-Ms": "1000"}
        responses = await asyncio.gather(*(client.post("/segment", content=GOOD, headers=headers) for _ in range(7)))
        assert [r.status_code for r in responses] == [504] * 7
        assert time.monotonic() - began < 60
        # Since the engine was called, not since the request was sent: on a busy machine they differ.
        await asyncio.sleep(max(0.0, pipeline.model.batcher.busy_since + 0.6 - time.monotonic()))
        live, ready = await client.get("/healthz/live"), await client.get("/healthz/ready")
        assert (live.status_code, ready.status_code) == (503, 503)
        assert "the engine hangs" in live.json()["detail"]
        assert pipeline.admission.in_flight <= 2  # what the engine is computing
        gate.opened.set()
        await until_idle(pipeline.admission)  # an earlier request would be rejected for its deadline
        assert (await client.post("/segment", content=GOOD)).status_code == 200  # it was only slow
        assert (await client.get("/healthz/live")).status_code == 200


async def until_idle(admission: AdmissionController) -> None:
    """Wait until no request is in flight."""
    while admission.in_flight:  # noqa: ASYNC110 - it has no event for that, and needs none
        await asyncio.sleep(0.01)


async def test_an_engine_that_fails_every_time_is_not_ready_until_it_works() -> None:
    engine = FakeEngine()
    async with serving(engine) as (client, _):
        engine.before = fail(RuntimeError("driver"))
        for _ in range(3):
            assert (await client.post("/segment", content=GOOD)).status_code == 500
        assert (await client.get("/healthz/ready")).status_code == 503
        assert (await client.get("/healthz/live")).status_code == 200
        engine.before = lambda batch: None
        assert (await client.get("/healthz/ready")).status_code == 200
