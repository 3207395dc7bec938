"""Several images in one request."""

import asyncio
import base64
from typing import Any

import numpy as np

from service.http.openapi.segment import MultiImageResponse
from tests.support.fake_engine import FakeEngine, Gate, encoded, opened, serving


def make_image(class_id: int, height: int = 16, width: int = 24) -> bytes:
    return encoded(np.full((height, width, 3), class_id, dtype=np.uint8))


def form(*images: bytes) -> dict[str, Any]:
    return {"files": [("image", (f"{i}.png", data)) for i, data in enumerate(images)]}


async def test_results_are_in_the_order_of_the_images() -> None:
    async with serving() as (client, app):
        response = await client.post("/segment", **form(*[make_image(i % 4, 16 + i) for i in range(9)]))
        assert app.state.pipeline.admission.in_flight == 0
    body = response.json()
    MultiImageResponse.model_validate(body)
    assert [r["height"] for r in body["results"]] == [16 + i for i in range(9)]
    assert [r["classes"][0]["id"] for r in body["results"]] == [i % 4 for i in range(9)]
    masks = [opened(base64.b64decode(r["mask"])) for r in body["results"]]
    assert [mask.size for mask in masks] == [(24, 16 + i) for i in range(9)]
    assert [(r["index"], r["filename"]) for r in body["results"]] == [(i, f"{i}.png") for i in range(9)]
    assert list(body["results"][0])[:2] == ["index", "filename"]
    assert "infer;dur=" in response.headers["server-timing"]


async def test_file_names_are_the_clients_own_and_optional() -> None:
    names = ["b\u00e4r \u3042.png", 'a "b".png', "x" * 300, None]
    parts = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="image"'
        + (b"" if name is None else b'; filename="%s"' % name.replace('"', "%22").encode())
        + b"\r\n\r\n"
        + make_image(1)
        + b"\r\n"
        for name in names
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with serving() as (client, _):
        response = await client.post("/segment", content=parts + b"--b--\r\n", headers=headers)
    results = MultiImageResponse.model_validate(response.json()).results
    assert [r.filename for r in results] == ["b\u00e4r \u3042.png", "a %22b%22.png", "x" * 255, None]
    assert "filename" not in response.json()["results"][3]


async def test_an_invalid_image_fails_alone() -> None:
    async with serving(max_pixels=1000) as (client, _):
        images = [make_image(1), b"", b"hello", make_image(1)[:60], make_image(2, 100, 100), make_image(3)]
        response = await client.post("/segment", **form(*images), headers={"X-Request-Id": "mine"})
    assert response.status_code == 200
    results = response.json()["results"]
    MultiImageResponse.model_validate(response.json())
    assert [r.get("problem", {}).get("status") for r in results] == [None, 415, 415, 400, 413, None]
    assert results[2]["problem"]["type"] == "urn:alignseg:problem:unsupported-image"
    assert results[2]["problem"]["request_id"] == "mine"
    assert [(r["index"], r["filename"]) for r in results] == [(i, f"{i}.png") for i in range(6)]
    assert [r["classes"][0]["id"] for r in (results[0], results[5])] == [1, 3]


async def test_an_image_the_engine_fails_on_fails_alone() -> None:
    engine = FakeEngine()
    async with serving(engine) as (client, _):

        def before(batch: np.ndarray[Any, Any]) -> None:
            if (batch == 2).any():
                raise ValueError("2")

        engine.before = before
        results = (await client.post("/segment", **form(make_image(1), make_image(2), make_image(3)))).json()["results"]
    assert [r.get("problem", {}).get("status") for r in results] == [None, 500, None]


async def test_query_parameters_apply_to_all_images() -> None:
    async with serving() as (client, _):
        response = await client.post("/segment?masks=rle&classes=sky", **form(make_image(1), make_image(2)))
    sky, none = response.json()["results"]
    assert "rle" in sky["classes"][0]
    assert none["classes"] == []


async def test_images_share_batches_and_take_extra_permits_up_to_half_the_limit() -> None:
    gate = Gate()
    gate.opened.set()
    engine = FakeEngine(max_batch=8, before=gate)
    async with serving(engine, max_in_flight=8) as (client, app):
        gate.entered.clear()
        gate.opened.clear()
        request = asyncio.create_task(client.post("/segment", **form(*[make_image(i % 4) for i in range(12)])))
        await asyncio.to_thread(gate.entered.wait, 10)
        await asyncio.sleep(0.05)
        assert app.state.pipeline.admission.in_flight == 4  # half of the limit
        other = asyncio.create_task(client.post("/segment", content=make_image(0)))
        gate.opened.set()
        assert [r.status_code for r in await asyncio.gather(request, other)] == [200, 200]
        assert app.state.pipeline.admission.in_flight == 0
    assert max(n for n, *_ in engine.batches) > 1


async def test_a_limit_of_one_request_is_enough() -> None:
    async with serving(max_in_flight=1) as (client, _):
        results = (await client.post("/segment", **form(*[make_image(i % 4) for i in range(5)]))).json()["results"]
    assert [r["classes"][0]["id"] for r in results] == [0, 1, 2, 3, 0]


async def test_a_missed_deadline_releases_all_permits() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(before=gate), request_timeout_ms=50, max_in_flight=8) as (client, app):
        gate.opened.clear()
        response = await client.post("/segment", **form(*[make_image(i % 4) for i in range(6)]))
        assert response.status_code == 504
        gate.opened.set()
        for _ in range(1000):
            if app.state.pipeline.admission.in_flight == 0:
                break
            await asyncio.sleep(0.005)
        assert app.state.pipeline.admission.in_flight == 0


async def test_too_many_images_are_rejected_with_the_limit() -> None:
    async with serving(max_images=2) as (client, _):
        problem = (await client.post("/segment", **form(make_image(0), make_image(0), make_image(0)))).json()
    assert "3 fields named 'image'" in problem["detail"]
    assert "Expected 1 to 2 (ALIGNSEG_MAX_IMAGES)" in problem["detail"]


async def test_images_of_one_request_wait_for_each_other_at_the_pixel_limit() -> None:
    images = [make_image(i % 4, 100, 100) for i in range(16)]
    async with serving(FakeEngine(max_batch=1), max_pixels=10_000, max_pixels_in_flight=30_000) as (client, app):
        results = (await client.post("/segment", **form(*images))).json()["results"]
        assert app.state.pipeline.pixels.reserved == 0
    assert [result.get("problem", {}).get("status") for result in results] == [None] * 16


async def test_images_are_rejected_if_other_requests_use_the_pixel_limit() -> None:
    images = [make_image(i % 4, 100, 100) for i in range(6)]
    async with serving(max_pixels=10_000, max_pixels_in_flight=15_000) as (client, app):
        with app.state.pipeline.pixels.reservation() as take:
            take(10_000)
            response = await asyncio.wait_for(client.post("/segment", **form(*images)), 10)
    results = response.json()["results"]
    assert [result["problem"]["status"] for result in results] == [429] * 6
