"""POST /segment and GET /classes with a fake engine."""

import base64
import io
from collections.abc import AsyncGenerator

import numpy as np
import pytest
from PIL import Image

from service.http.openapi.segment import SegmentResponse
from tests.support.fake_engine import COLORS, FakeEngine, encoded, opened, serving, striped

IMAGE = striped()
PNG = encoded(IMAGE)
IDS = IMAGE[..., 0]


def from_base64(text: str) -> Image.Image:
    return opened(base64.b64decode(text))


async def test_multipart_and_raw_bodies_give_the_same_response() -> None:
    async with serving() as (client, _):
        responses = [
            await client.post("/segment", files={"image": ("a.png", PNG, "image/png")}),
            await client.post("/segment", content=PNG, headers={"Content-Type": "image/png"}),
            await client.post("/segment", content=PNG, headers={"Content-Type": "application/octet-stream"}),
            await client.post("/segment", content=PNG),
        ]
    assert [response.status_code for response in responses] == [200] * 4
    bodies = [{k: v for k, v in a.json().items() if k != "timing_ms"} for a in responses]
    assert all(body == bodies[0] for body in bodies)


async def test_json_is_the_default_format() -> None:
    async with serving() as (client, _):
        response = await client.post("/segment", content=PNG)
    body = response.json()
    SegmentResponse.model_validate(body, extra="forbid")
    assert (body["model"], body["version"], body["width"], body["height"]) == ("fake", "1", 24, 16)
    assert [c["name"] for c in body["classes"]] == list(COLORS)
    assert body["classes"][1] == {
        "id": 1, "name": "sky", "color": [128, 128, 128], "pixels": 96, "fraction": 0.25, "box": [6, 0, 6, 16],
    }  # fmt: skip
    np.testing.assert_array_equal(np.asarray(from_base64(body["mask"])), IDS)
    assert list(body["timing_ms"]) == ["decode", "queue", "infer", "encode"]
    assert all(ms >= 0 for ms in body["timing_ms"].values())
    assert response.headers["vary"] == "Accept"


async def test_png_has_the_images_own_size() -> None:
    large = striped(160, 240)
    async with serving() as (client, _):
        response = await client.post("/segment", content=encoded(large), headers={"Accept": "image/png"})
    assert response.headers["content-type"] == "image/png"
    assert "infer;dur=" in response.headers["server-timing"]
    mask = opened(response.content)
    assert (mask.mode, mask.size) == ("P", (240, 160))
    assert mask.getpalette()[3:6] == [128, 128, 128]  # type: ignore[index]
    inner = np.asarray(mask)[:, [30, 90, 150, 210]]
    np.testing.assert_array_equal(inner, np.broadcast_to(np.arange(4), inner.shape))


async def test_include_adds_images_to_the_json() -> None:
    async with serving() as (client, _):
        response = await client.post("/segment?include=overlay,class_masks&include=class_overlays", content=PNG)
    body = response.json()
    assert from_base64(body["overlay"]).size == (24, 16)
    assert list(body["class_masks"]) == list(body["class_overlays"]) == list(COLORS)
    np.testing.assert_array_equal(np.asarray(from_base64(body["class_masks"]["tree"])) == 255, IDS == 2)
    assert from_base64(body["class_overlays"]["tree"]).convert("RGBA").getpixel((0, 0)) == (0, 0, 0, 0)


async def test_a_tall_image_uses_the_tall_bucket() -> None:
    engine = FakeEngine()
    async with serving(engine) as (client, _):
        await client.post("/segment", content=encoded(striped(48, 32)))
    assert engine.batches == [(1, 16, 24, 3), (1, 24, 16, 3), (1, 24, 16, 3)]  # two to warm up


async def stream(total: int, head: bytes = b"") -> AsyncGenerator[bytes, None]:
    yield head
    for _ in range(total // 1000):
        yield b"\xff" * 1000


NOISE = encoded(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8), "JPEG")
FORM = "multipart/form-data; boundary=x"
FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
INVALID = {
    "no image": ({"content": b"hello"}, 415, "unsupported-image"),
    "a GIF": ({"content": encoded(IMAGE, "GIF")}, 415, "unsupported-image"),
    "truncated": ({"content": NOISE[:-300]}, 400, "corrupt-image"),
    "corrupt": ({"content": PNG[:40] + b"\0\0\0" + PNG[43:]}, 400, "corrupt-image"),
    "only a header": ({"content": PNG[:20]}, 400, "corrupt-image"),
    "empty body": ({"content": b""}, 400, "bad-request"),
    "empty file": ({"files": {"image": ("a.png", b"", "image/png")}}, 400, "bad-request"),
    "too many bytes, declared": ({"content": b"\xff" * 5001}, 413, "payload-too-large"),
    "too many bytes, streamed": ({"content": stream(10_000)}, 413, "payload-too-large"),
    "too many bytes in a form": ({"files": {"image": ("a.png", b"\xff" * 6000)}}, 413, "payload-too-large"),
    "too many bytes in a form, streamed": (
        {"content": stream(10_000, FORM_HEAD), "headers": {"Content-Type": FORM}}, 413, "payload-too-large"),
    "too many pixels": ({"content": encoded(np.zeros((101, 100), np.uint8))}, 413, "image-too-large"),
    "another field": ({"files": {"file": ("a.png", PNG)}}, 400, "bad-request"),
    "too many images": ({"files": [("image", (f"{i}.png", b"x")) for i in range(17)]}, 400, "bad-request"),
    "several images as one": (
        {"files": [("image", ("a.png", PNG))] * 2, "headers": {"Accept": "image/png"}}, 400, "bad-request"),
    "text beside an image": (
        {"files": [("image", ("a.png", PNG)), ("image", (None, "text"))]}, 400, "bad-request"),
    "text in the field": ({"data": {"image": "a.png"}, "files": {"x": b"x"}}, 400, "bad-request"),
    "form without a boundary": (
        {"content": PNG, "headers": {"Content-Type": "multipart/form-data"}}, 400, "bad-request"),
    "form in no known charset": (
        {"content": PNG, "headers": {"Content-Type": f"{FORM}; charset=undefined"}}, 400, "bad-request"),
    "a form that ends early": (
        {"content": FORM_HEAD + PNG + b"\r\n" + FORM_HEAD + PNG, "headers": {"Content-Type": FORM}},
        400, "bad-request"),
    "an empty form": ({"content": b"", "headers": {"Content-Type": FORM}}, 400, "bad-request"),
    "no form inside": ({"content": PNG, "headers": {"Content-Type": FORM}}, 400, "bad-request"),
    "urlencoded": (
        {"content": PNG, "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        415, "unsupported-media-type"),
    "JSON": ({"json": {"image": "a"}}, 400, "bad-request"),
    "compressed": ({"content": PNG, "headers": {"Content-Encoding": "gzip"}}, 415, "unsupported-media-type"),
    "unknown include": ({"content": PNG, "params": {"include": "overlay,masks"}}, 400, "bad-request"),
    "include with image/png": (
        {"content": PNG, "params": {"include": "overlay"}, "headers": {"Accept": "image/png"}}, 400, "bad-request"),
    "Accept without a supported type": ({"content": PNG, "headers": {"Accept": "text/html"}}, 406, "not-acceptable"),
    "wrong method": ({"method": "GET"}, 405, None),
    "wrong path": ({"url": "/segments", "content": PNG}, 404, None),
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID)
async def test_an_invalid_request_is_a_problem_document(name: str) -> None:
    options, status, slug = INVALID[name]
    async with serving(max_body_bytes=5000, max_pixels=10_000) as (client, app):
        response = await client.request(**{"method": "POST", "url": "/segment", **options})
        assert app.state.pipeline.admission.in_flight == 0
        assert (await client.post("/segment", content=PNG)).status_code == 200  # the server goes on
    problem = response.json()
    print(f"{name}: {problem}")  # noqa: T201 - pytest -rP shows what a client would read
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["type"] == (f"urn:alignseg:problem:{slug}" if slug else "about:blank")
    assert problem["status"] == status
    assert problem["title"]
    assert len(problem["detail"]) > 20
    assert problem["request_id"] == response.headers["x-request-id"]


async def test_a_missing_field_gives_a_curl_example() -> None:
    async with serving() as (client, _):
        problem = (await client.post("/segment", files={"file": ("a.png", PNG)})).json()
    assert "curl -F image=@photo.jpg" in problem["detail"]
    assert "'file'" in problem["detail"]


async def test_an_unknown_include_lists_the_supported_ones() -> None:
    async with serving() as (client, _):
        problem = (await client.post("/segment?include=mask", content=PNG)).json()
    assert problem["detail"] == "Unknown value of include: mask. Supported: overlay, class_masks, class_overlays."


async def test_a_wrong_method_names_the_supported_one() -> None:
    async with serving() as (client, _):
        refused = await client.get("/segment")
    assert refused.headers["allow"] == "POST"
    assert "Supported: POST" in refused.json()["detail"]


async def test_an_option_in_the_form_is_rejected_with_the_url_to_use() -> None:
    async with serving() as (client, _):
        refused = await client.post("/segment", files={"image": PNG}, data={"confidence": "true", "note": "mine"})
        accepted = await client.post("/segment", files={"image": PNG}, data={"note": "mine"})
    assert refused.status_code == 400
    assert "/segment?confidence=true" in refused.json()["detail"]
    assert accepted.status_code == 200  # other fields are ignored


async def test_a_camvid_frame_keeps_its_size(camvid_frame: object) -> None:
    from pathlib import Path

    assert isinstance(camvid_frame, Path)
    data = camvid_frame.read_bytes()
    async with serving() as (client, _):
        body = (await client.post("/segment", content=data)).json()
    assert (body["width"], body["height"]) == Image.open(io.BytesIO(data)).size


async def test_classes_lists_id_name_and_color() -> None:
    async with serving() as (client, _):
        body = (await client.get("/classes")).json()
    assert body["classes"][1] == {"id": 1, "name": "sky", "color": [128, 128, 128]}
    assert len(body["classes"]) == len(COLORS)
