"""POST /segment in every response format, with a fake engine whose maps are known: id = red % 4, confidence = green."""

import asyncio
import base64
import email
import email.policy
import io
import json
import threading
import time
import zipfile
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from service.http.openapi.segment import SegmentResponse
from service.rendering import media_types
from service.types import Inference, UInt8Array
from tests.support.fake_engine import COLORS, FakeEngine, Gate, encoded, opened, serving, striped

# pycocotools was built before numpy 2 asked for the copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
IMAGE = striped()
IMAGE[..., 1] = np.arange(16)[:, None] * 10
PNG = encoded(IMAGE)
IDS, CONFIDENCE = IMAGE[..., 0], IMAGE[..., 1]
PALETTE = np.array(list(COLORS.values()), dtype=np.uint8)


async def ask(
    accept: str = media_types.JSON, engine: FakeEngine | None = None, data: bytes = PNG, **query: Any
) -> httpx.Response:
    async with serving(engine) as (client, _):
        return await client.post("/segment", content=data, params=query, headers={"Accept": accept})


async def answer(**query: Any) -> dict[str, Any]:
    response = await ask(**query)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    SegmentResponse.model_validate(body)
    return body


def from_base64(text: str) -> UInt8Array:
    return np.asarray(opened(base64.b64decode(text)))


@pytest.mark.parametrize(("accept", "kind"), [(media_types.JPEG, "JPEG"), (media_types.WEBP, "WEBP")])
async def test_an_overlay_shows_the_palette_or_the_image(accept: str, kind: str) -> None:
    large = striped(160, 240)
    response = await ask(accept, data=encoded(large), alpha=1)
    assert response.headers["content-type"] == accept
    assert response.headers["link"] == '</classes>; rel="describedby"'
    image = opened(response.content)
    assert (image.format, image.size) == (kind, (240, 160))
    middles = np.asarray(image)[80, [30, 90, 150, 210]].astype(int)
    assert np.abs(middles - PALETTE).max() < 8
    plain = np.asarray(opened((await ask(accept, data=encoded(large), alpha=0)).content)).astype(int)
    assert np.abs(plain - large).mean() < 3


async def test_npy_has_the_class_ids() -> None:
    response = await ask(media_types.NPY)
    ids = np.load(io.BytesIO(response.content))
    assert (response.headers["content-type"], ids.dtype) == (media_types.NPY, np.uint8)
    np.testing.assert_array_equal(ids, IDS)


FILES = [
    "answer.json", "mask.png", "overlay.jpg", "confidence.png", "classes/000-road.png", "classes/001-sky.png",
    "classes/002-tree.png", "classes/003-car.png",
]  # fmt: skip


def check_files(files: dict[str, bytes]) -> None:
    assert list(files) == FILES
    response = SegmentResponse.model_validate_json(files["answer.json"])
    assert response.files == FILES[1:]
    assert response.mask is response.overlay is response.confidence is None
    np.testing.assert_array_equal(np.asarray(opened(files["mask.png"])), IDS)
    np.testing.assert_array_equal(np.asarray(opened(files["confidence.png"])), CONFIDENCE)
    assert opened(files["overlay.jpg"]).size == (24, 16)
    for c in response.classes:
        assert c.file is not None
        np.testing.assert_array_equal(np.asarray(opened(files[c.file]).convert("L")), (c.id == IDS) * 255)
        assert c.rle is not None


async def test_zip_has_all_files() -> None:
    response = await ask(media_types.ZIP, confidence=True, masks="rle")
    assert response.headers["content-type"] == media_types.ZIP
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        check_files({name: archive.read(name) for name in archive.namelist()})


async def test_multipart_has_all_files() -> None:
    response = await ask(media_types.MULTIPART, confidence=True, masks="rle")
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + response.content, policy=email.policy.HTTP)
    assert message.get_content_type() == media_types.MULTIPART
    assert not message.defects
    parts = list(message.iter_parts())  # type: ignore[attr-defined]
    assert [part.get_content_type() for part in parts][:3] == [media_types.JSON, media_types.PNG, media_types.JPEG]
    bodies = {part.get_filename(): part.get_payload(decode=True) for part in parts}
    assert all(len(bodies[part.get_filename()]) == int(part["Content-Length"]) for part in parts)
    check_files(bodies)


async def test_rle_is_decoded_by_pycocotools() -> None:
    body = await answer(masks="rle")
    assert "mask" not in body
    for c in body["classes"]:
        np.testing.assert_array_equal(coco.decode(c["rle"]), c["id"] == IDS)


async def test_polygons_are_in_pixels_of_the_image() -> None:
    body = await answer(masks="polygons", data=encoded(striped(160, 240)))
    sky = body["classes"][1]
    assert sky["polygons"]["type"] == "MultiPolygon"
    assert sky["polygons"]["coordinates"] == [[[[60, 0], [120, 0], [120, 160], [60, 160], [60, 0]]]]


async def test_masks_none_leaves_out_all_masks() -> None:
    body = await answer(masks="none")
    assert "mask" not in body
    assert "rle" not in body["classes"][0]


async def test_confidence_adds_a_map_and_a_mean_per_class() -> None:
    body = await answer(confidence="true")
    np.testing.assert_array_equal(from_base64(body["confidence"]), CONFIDENCE)
    assert [c["confidence"] for c in body["classes"]] == [pytest.approx(75 / 255, abs=1e-4)] * 4
    assert "confidence" not in await answer()


async def test_confidence_of_a_model_without_it_is_rejected_before_the_upload() -> None:
    engine = FakeEngine()
    engine.has_confidence = False
    response = await ask(engine=engine, confidence="true")
    assert (response.status_code, response.json()["type"]) == (400, "urn:alignseg:problem:bad-request")
    assert "fake 1 has no confidence output" in response.json()["detail"]
    assert len(engine.batches) == 2  # to warm up


async def test_selected_classes_in_json() -> None:
    body = await answer(classes="car,1", masks="png", include="class_masks")
    assert [c["name"] for c in body["classes"]] == list(body["class_masks"]) == ["sky", "car"]
    assert body["unselected_id"] == 255
    np.testing.assert_array_equal(from_base64(body["mask"]), np.where(np.isin(IDS, [1, 3]), IDS, 255))
    assert body["classes"][0]["fraction"] == 0.25  # of the whole image


async def test_selected_classes_in_arrays_and_overlays() -> None:
    ids = np.load(io.BytesIO((await ask(media_types.NPY, classes="road")).content))
    np.testing.assert_array_equal(ids, np.where(IDS == 0, 0, 255))
    large = striped(160, 240)
    overlay = np.asarray(opened((await ask(media_types.JPEG, data=encoded(large), classes="sky", alpha=1)).content))
    shown, left = overlay[80, 90].astype(int), overlay[80, 210].astype(int)
    assert np.abs(shown - PALETTE[1]).max() < 8
    assert np.abs(left - large[80, 210]).max() < 8


async def test_classes_are_renamed_and_merged() -> None:
    body = await answer(classes="road=ground,tree=ground,car", masks="rle", include="class_masks", confidence="true")
    assert [(c["id"], c["name"], c["fraction"]) for c in body["classes"]] == [(0, "ground", 0.5), (3, "car", 0.25)]
    assert list(body["class_masks"]) == ["ground", "car"]
    png = opened((await ask(media_types.PNG, classes="road=ground,tree=ground,car")).content)
    np.testing.assert_array_equal(np.asarray(png), np.where(IDS == 2, 0, np.where(IDS == 1, 255, IDS)))
    assert json.loads(png.info["classes"]) == {"0": "ground", "1": "", "2": "", "3": "car"}


async def test_an_absent_class_is_no_error() -> None:
    body = await answer(classes="car", data=encoded(np.zeros((16, 24, 3), np.uint8)), masks="polygons")
    assert body["classes"] == []


async def test_tiles_keep_details_that_scaling_down_loses() -> None:
    fine = np.zeros((40, 90, 3), dtype=np.uint8)
    fine[::2, ::2, 0] = 1  # single pixels: lost when the image is scaled down
    fine[..., 1] = np.arange(90)
    engine = FakeEngine(max_batch=4)
    response = await ask(engine=engine, data=encoded(fine), tile="true", confidence="true", masks="png")
    body = response.json()
    assert (body["tiles"], body["width"], body["height"]) == (2 * 9, 90, 40)
    np.testing.assert_array_equal(from_base64(body["mask"]), fine[..., 0])
    np.testing.assert_array_equal(from_base64(body["confidence"]), fine[..., 1])
    assert sum(n for n, *_ in engine.batches[2:]) == 18
    assert len({shape[1:] for shape in engine.batches[2:]}) == 1


async def test_too_many_tiles_are_rejected() -> None:
    async with serving(max_tiles=17) as (client, _):
        response = await client.post("/segment?tile=1", content=encoded(np.zeros((40, 90, 3), np.uint8)))
    assert response.status_code == 413
    assert "18 tiles of 16 x 24, limit 17 (ALIGNSEG_MAX_TILES)" in response.json()["detail"]


async def test_a_failed_tile_fails_its_image_alone() -> None:
    engine = FakeEngine()
    image_pixels = np.zeros((40, 90, 3), dtype=np.uint8)
    image_pixels[0, 0] = 77
    async with serving(engine) as (client, app):

        def before(batch: UInt8Array) -> None:
            if (batch == 77).any():
                raise ValueError("77")

        engine.before = before
        response = await client.post("/segment?tile=1", content=encoded(image_pixels))
        assert (response.status_code, response.json()["type"]) == (500, "urn:alignseg:problem:inference-failed")
        assert app.state.pipeline.admission.in_flight == 0
        assert (await client.post("/segment", content=PNG)).status_code == 200


async def test_tiles_after_the_deadline_are_not_computed() -> None:
    gate = Gate()
    gate.opened.set()
    engine = FakeEngine(max_batch=2, before=gate)
    async with serving(engine, request_timeout_ms=60) as (client, app):
        gate.opened.clear()
        response = await client.post("/segment?tile=1", content=encoded(np.zeros((40, 90, 3), np.uint8)))
        assert response.status_code == 504
        gate.opened.set()
        for _ in range(1000):
            if app.state.pipeline.admission.in_flight == 0:
                break
            await asyncio.sleep(0.005)
        assert app.state.pipeline.admission.in_flight == 0
    assert sum(n for n, *_ in engine.batches[2:]) <= 4  # two batches' worth, of 18


async def test_other_images_run_between_the_tiles_of_one() -> None:
    """A small image does not wait for all tiles of a large one that arrived before it."""
    begun = threading.Event()
    engine = FakeEngine(max_batch=1)
    async with serving(engine) as (client, _):
        engine.before = lambda batch: (begun.set(), time.sleep(0.005))
        large = asyncio.create_task(client.post("/segment?tile=1", content=encoded(np.zeros((40, 90, 3), np.uint8))))
        await asyncio.to_thread(begun.wait, 10)
        assert (await client.post("/segment", content=PNG)).status_code == 200
        assert not large.done()
        assert (await large).status_code == 200


@pytest.mark.parametrize("accept", media_types.ALL)
async def test_a_class_id_out_of_range_is_an_error_in_every_format(accept: str) -> None:
    engine = FakeEngine()
    engine.infer = lambda batch, with_confidence: Inference(batch[..., 0] | 255)  # type: ignore[method-assign]
    response = await ask(accept, engine)
    assert (response.status_code, response.json()["type"]) == (500, "urn:alignseg:problem:inference-failed")
    assert "class id 255, the model has 4" in response.json()["detail"]


async def test_the_png_contains_the_class_names() -> None:
    mask = opened((await ask(media_types.PNG)).content)
    assert mask.info["classes"] == '{"0":"road","1":"sky","2":"tree","3":"car"}'
    assert isinstance(mask, Image.Image)
