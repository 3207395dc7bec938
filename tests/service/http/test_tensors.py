"""Every API counts its work in tensors, and nothing is left when a request has ended, however it ends."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import numpy as np
import orjson
import pytest
from fastapi import FastAPI

from service.admission.controller import AdmissionController
from tests.support.fake_engine import FakeEngine, Gate, encoded, serving, striped

PNG = encoded(striped())
TILED = encoded(np.zeros((80, 120, 3), dtype=np.uint8))  # 8 x 7 tiles of 16 x 24
TILES = 56
Send = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]


def images(count: int, data: bytes = PNG) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("image", (f"{index}.png", data, "image/png")) for index in range(count)]


def kserve(count: int) -> bytes:
    values = np.zeros((count, 16, 24, 3), dtype=np.uint8)
    tensor = {"name": "pictures", "datatype": "UINT8", "shape": list(values.shape), "data": values.ravel().tolist()}
    return orjson.dumps({"inputs": [tensor]})


REQUESTS: dict[str, tuple[int, Send]] = {
    "image": (1, lambda client: client.post("/segment", content=PNG)),
    "tiles": (TILES, lambda client: client.post("/segment?tile=true", content=TILED)),
    "images": (6, lambda client: client.post("/segment", files=images(6))),
    "tiled images": (TILES + 2, lambda client: client.post("/segment?tile=true", files=images(3, TILED))),
    "kserve": (5, lambda client: client.post("/v2/models/fake/infer", content=kserve(5))),
    "hugging face": (1, lambda client: client.post("/", content=PNG, headers={"Content-Type": "image/png"})),
}


async def wait_for_tensors(admission: AdmissionController, count: int) -> None:
    async with asyncio.timeout(10):
        while admission.tensors != count:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(("tensors", "send"), REQUESTS.values(), ids=REQUESTS)
async def test_a_request_counts_its_tensors(tensors: int, send: Send) -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(2, gate), max_in_flight=2) as (client, app):  # one image of a request at a time
        gate.opened.clear()
        request = asyncio.ensure_future(send(client))
        await wait_for_tensors(app.state.pipeline.admission, tensors)
        gate.opened.set()
        assert (await request).status_code == 200
        await wait_for_tensors(app.state.pipeline.admission, 0)
        check_nothing_is_left(app)


@pytest.mark.parametrize(("tensors", "send"), REQUESTS.values(), ids=REQUESTS)
async def test_nothing_is_left_of_a_request_whose_images_fail(tensors: int, send: Send) -> None:
    engine = FakeEngine()
    async with serving(engine) as (client, app):
        engine.before = lambda batch: 1 / 0
        await send(client)
        check_nothing_is_left(app)
        engine.before = lambda batch: None
        assert (await send(client)).status_code == 200
        check_nothing_is_left(app)


@pytest.mark.parametrize(("tensors", "send"), REQUESTS.values(), ids=REQUESTS)
async def test_nothing_is_left_of_a_request_that_is_cancelled(tensors: int, send: Send) -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(2, gate)) as (client, app):
        gate.opened.clear()
        gate.entered.clear()
        request = asyncio.ensure_future(send(client))
        await asyncio.to_thread(gate.entered.wait, 120)
        request.cancel()
        await asyncio.sleep(0.02)
        gate.opened.set()
        await wait_for_tensors(app.state.pipeline.admission, 0)
        check_nothing_is_left(app)


def check_nothing_is_left(app: FastAPI) -> None:
    admission: AdmissionController = app.state.pipeline.admission
    assert (admission.tensors, admission.tensors_ahead, admission.in_flight) == (0, 0, 0)
    assert (admission._tiles, admission._waiting) == (0, 0)


async def test_tiles_of_several_requests_take_turns() -> None:
    """Together they are as many in the engine's queue as the tiles of one, and none waits for all of another's."""
    gate = Gate()
    gate.opened.set()
    engine = FakeEngine(1, gate)
    async with serving(engine, max_in_flight=8) as (client, app):
        gate.opened.clear()
        requests = [asyncio.ensure_future(client.post("/segment?tile=true", content=TILED)) for _ in range(3)]
        await wait_for_tensors(app.state.pipeline.admission, 3 * TILES)
        await asyncio.sleep(0.05)
        queued = app.state.pipeline.model.batcher._queue
        assert len(queued._all()) == 1  # and one is computed
        gate.opened.set()
        responses = await asyncio.gather(*requests)
    assert [response.status_code for response in responses] == [200] * 3
