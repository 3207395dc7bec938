"""Several pictures in one request."""

import asyncio
import base64
from typing import Any

import numpy as np

from service.http.openapi.segment import SeveralAnswers
from tests.support.fake_engine import FakeEngine, Gate, encoded, opened, serving


def picture(class_id: int, height: int = 16, width: int = 24) -> bytes:
    return encoded(np.full((height, width, 3), class_id, dtype=np.uint8))


def form(*pictures: bytes) -> dict[str, Any]:
    return {"files": [("image", (f"{i}.png", data)) for i, data in enumerate(pictures)]}


async def test_each_has_its_own_answer_in_order() -> None:
    async with serving() as (client, app):
        response = await client.post("/segment", **form(*[picture(i % 4, 16 + i) for i in range(9)]))
        assert app.state.pipeline.admission.in_flight == 0
    body = response.json()
    SeveralAnswers.model_validate(body)
    assert [r["height"] for r in body["results"]] == [16 + i for i in range(9)]
    assert [r["classes"][0]["id"] for r in body["results"]] == [i % 4 for i in range(9)]
    masks = [opened(base64.b64decode(r["mask"])) for r in body["results"]]
    assert [mask.size for mask in masks] == [(24, 16 + i) for i in range(9)]
    assert "infer;dur=" in response.headers["server-timing"]


async def test_a_bad_one_fails_alone() -> None:
    async with serving(max_pixels=1000) as (client, _):
        pictures = [picture(1), b"", b"hello", picture(1)[:60], picture(2, 100, 100), picture(3)]
        response = await client.post("/segment", **form(*pictures), headers={"X-Request-Id": "mine"})
    assert response.status_code == 200
    results = response.json()["results"]
    SeveralAnswers.model_validate(response.json())
    assert [r.get("problem", {}).get("status") for r in results] == [None, 415, 415, 400, 413, None]
    assert results[2]["problem"]["type"] == "urn:alignseg:problem:unsupported-image"
    assert results[2]["problem"]["request_id"] == "mine"
    assert [r["classes"][0]["id"] for r in (results[0], results[5])] == [1, 3]


async def test_one_that_the_engine_fails_on_fails_alone() -> None:
    engine = FakeEngine()
    async with serving(engine) as (client, _):

        def before(batch: np.ndarray[Any, Any]) -> None:
            if (batch == 2).any():
                raise ValueError("2")

        engine.before = before
        results = (await client.post("/segment", **form(picture(1), picture(2), picture(3)))).json()["results"]
    assert [r.get("problem", {}).get("status") for r in results] == [None, 500, None]


async def test_parameters_hold_for_all() -> None:
    async with serving() as (client, _):
        response = await client.post("/segment?masks=rle&classes=sky", **form(picture(1), picture(2)))
    sky, none = response.json()["results"]
    assert "rle" in sky["classes"][0]
    assert none["classes"] == []


async def test_they_share_batches_and_take_a_place_each_while_there_is_room() -> None:
    gate = Gate()
    gate.opened.set()
    engine = FakeEngine(max_batch=8, before=gate)
    async with serving(engine, max_in_flight=8) as (client, app):
        gate.entered.clear()
        gate.opened.clear()
        asked = asyncio.create_task(client.post("/segment", **form(*[picture(i % 4) for i in range(12)])))
        await asyncio.to_thread(gate.entered.wait, 10)
        await asyncio.sleep(0.05)
        assert app.state.pipeline.admission.in_flight == 4  # half the house
        other = asyncio.create_task(client.post("/segment", content=picture(0)))
        gate.opened.set()
        assert [r.status_code for r in await asyncio.gather(asked, other)] == [200, 200]
        assert app.state.pipeline.admission.in_flight == 0
    assert max(n for n, *_ in engine.batches) > 1


async def test_one_place_is_enough() -> None:
    async with serving(max_in_flight=1) as (client, _):
        results = (await client.post("/segment", **form(*[picture(i % 4) for i in range(5)]))).json()["results"]
    assert [r["classes"][0]["id"] for r in results] == [0, 1, 2, 3, 0]


async def test_a_deadline_frees_all_places() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(before=gate), request_timeout_ms=50, max_in_flight=8) as (client, app):
        gate.opened.clear()
        response = await client.post("/segment", **form(*[picture(i % 4) for i in range(6)]))
        assert response.status_code == 504
        gate.opened.set()
        for _ in range(1000):
            if app.state.pipeline.admission.in_flight == 0:
                break
            await asyncio.sleep(0.005)
        assert app.state.pipeline.admission.in_flight == 0


async def test_too_many_says_how_many() -> None:
    async with serving(max_images=2) as (client, _):
        problem = (await client.post("/segment", **form(picture(0), picture(0), picture(0)))).json()
    assert "3 fields 'image'" in problem["detail"]
    assert "expected 1 to 2 (ALIGNSEG_MAX_IMAGES)" in problem["detail"]


async def test_a_lone_clients_pictures_wait_for_one_another_where_their_pixels_leave_no_room() -> None:
    pictures = [picture(i % 4, 100, 100) for i in range(16)]
    async with serving(FakeEngine(max_batch=1), max_pixels=10_000, max_pixels_in_flight=30_000) as (client, app):
        results = (await client.post("/segment", **form(*pictures))).json()["results"]
        assert app.state.pipeline.pixels.reserved == 0
    assert [result.get("problem", {}).get("status") for result in results] == [None] * 16


async def test_where_others_leave_no_room_for_pixels_it_is_told() -> None:
    pictures = [picture(i % 4, 100, 100) for i in range(6)]
    async with serving(max_pixels=10_000, max_pixels_in_flight=15_000) as (client, app):
        with app.state.pipeline.pixels.reservation() as take:
            take(10_000)
            answer = await asyncio.wait_for(client.post("/segment", **form(*pictures)), 10)
    results = answer.json()["results"]
    assert [result["problem"]["status"] for result in results] == [429] * 6
