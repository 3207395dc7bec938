import asyncio
import base64
import io
import time
from collections.abc import AsyncGenerator, Callable

import numpy as np
import pytest
from PIL import Image

from service.errors import DeviceLost, EngineError
from service.http.openapi.segment import SegmentAnswer
from tests.support.fake_engine import COLORS, FakeEngine, Gate, encoded, opened, serving, striped

PICTURE = striped()
PNG = encoded(PICTURE)
IDS = PICTURE[..., 0]


def from_base64(text: str) -> Image.Image:
    return opened(base64.b64decode(text))


async def test_multipart_and_raw_bodies_mean_the_same() -> None:
    async with serving() as (client, _):
        answers = [
            await client.post("/segment", files={"image": ("a.png", PNG, "image/png")}),
            await client.post("/segment", content=PNG, headers={"Content-Type": "image/png"}),
            await client.post("/segment", content=PNG, headers={"Content-Type": "application/octet-stream"}),
            await client.post("/segment", content=PNG),
        ]
    assert [a.status_code for a in answers] == [200] * 4
    bodies = [{k: v for k, v in a.json().items() if k != "timing_ms"} for a in answers]
    assert all(body == bodies[0] for body in bodies)


async def test_json_by_default() -> None:
    async with serving() as (client, _):
        response = await client.post("/segment", content=PNG)
    body = response.json()
    SegmentAnswer.model_validate(body, extra="forbid")
    assert (body["model"], body["version"], body["width"], body["height"]) == ("fake", "1", 24, 16)
    assert [c["name"] for c in body["classes"]] == list(COLORS)
    assert body["classes"][1] == {
        "id": 1, "name": "sky", "color": [128, 128, 128], "pixels": 96, "fraction": 0.25, "box": [6, 0, 6, 16],
    }  # fmt: skip
    np.testing.assert_array_equal(np.asarray(from_base64(body["mask"])), IDS)
    assert list(body["timing_ms"]) == ["decode", "queue", "infer", "encode"]
    assert all(ms >= 0 for ms in body["timing_ms"].values())
    assert response.headers["vary"] == "Accept"


async def test_png_at_the_pictures_own_size() -> None:
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


async def test_include_adds_pictures() -> None:
    async with serving() as (client, _):
        response = await client.post("/segment?include=overlay,class_masks&include=class_overlays", content=PNG)
    body = response.json()
    assert from_base64(body["overlay"]).size == (24, 16)
    assert list(body["class_masks"]) == list(body["class_overlays"]) == list(COLORS)
    np.testing.assert_array_equal(np.asarray(from_base64(body["class_masks"]["tree"])) == 255, IDS == 2)
    assert from_base64(body["class_overlays"]["tree"]).convert("RGBA").getpixel((0, 0)) == (0, 0, 0, 0)


async def test_a_tall_picture_takes_the_tall_bucket() -> None:
    engine = FakeEngine()
    async with serving(engine) as (client, _):
        await client.post("/segment", content=encoded(striped(48, 32)))
    assert engine.batches == [(1, 16, 24, 3), (1, 24, 16, 3), (1, 24, 16, 3)]  # two to warm up


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it did not happen within 5 s")


async def stream(total: int, head: bytes = b"") -> AsyncGenerator[bytes, None]:
    yield head
    for _ in range(total // 1000):
        yield b"\xff" * 1000


NOISE = encoded(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8), "JPEG")
FORM = "multipart/form-data; boundary=x"
FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
REFUSED = {
    "no picture": ({"content": b"hello"}, 415, "unsupported-image"),
    "a GIF": ({"content": encoded(PICTURE, "GIF")}, 415, "unsupported-image"),
    "truncated": ({"content": NOISE[:-300]}, 400, "corrupt-image"),
    "damaged": ({"content": PNG[:40] + b"\0\0\0" + PNG[43:]}, 400, "corrupt-image"),
    "header alone": ({"content": PNG[:20]}, 400, "corrupt-image"),
    "empty body": ({"content": b""}, 400, "bad-request"),
    "empty file": ({"files": {"image": ("a.png", b"", "image/png")}}, 400, "bad-request"),
    "too many bytes, announced": ({"content": b"\xff" * 5001}, 413, "payload-too-large"),
    "too many bytes, streamed": ({"content": stream(10_000)}, 413, "payload-too-large"),
    "too many bytes in a form": ({"files": {"image": ("a.png", b"\xff" * 6000)}}, 413, "payload-too-large"),
    "too many bytes in a form, streamed": (
        {"content": stream(10_000, FORM_HEAD), "headers": {"Content-Type": FORM}}, 413, "payload-too-large"),
    "too many pixels": ({"content": encoded(np.zeros((101, 100), np.uint8))}, 413, "image-too-large"),
    "another field": ({"files": {"file": ("a.png", PNG)}}, 400, "bad-request"),
    "too many pictures": ({"files": [("image", (f"{i}.png", b"x")) for i in range(17)]}, 400, "bad-request"),
    "several pictures as one": (
        {"files": [("image", ("a.png", PNG))] * 2, "headers": {"Accept": "image/png"}}, 400, "bad-request"),
    "text beside a picture": (
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
    "JSON": ({"json": {"image": "a"}}, 415, "unsupported-media-type"),
    "compressed": ({"content": PNG, "headers": {"Content-Encoding": "gzip"}}, 415, "unsupported-media-type"),
    "unknown include": ({"content": PNG, "params": {"include": "overlay,masks"}}, 400, "bad-request"),
    "include with image/png": (
        {"content": PNG, "params": {"include": "overlay"}, "headers": {"Accept": "image/png"}}, 400, "bad-request"),
    "Accept of nothing we make": ({"content": PNG, "headers": {"Accept": "text/html"}}, 406, "not-acceptable"),
    "wrong method": ({"method": "GET"}, 405, None),
    "wrong path": ({"url": "/segments", "content": PNG}, 404, None),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(name: str) -> None:
    options, status, slug = REFUSED[name]
    async with serving(max_body_bytes=5000, max_pixels=10_000) as (client, app):
        response = await client.request(**{"method": "POST", "url": "/segment", **options})
        assert app.state.pipeline.admission.in_flight == 0
        assert (await client.post("/segment", content=PNG)).status_code == 200  # and life goes on
    problem = response.json()
    print(f"{name}: {problem}")  # noqa: T201 - pytest -rP shows what a client would read
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["type"] == (f"urn:alignseg:problem:{slug}" if slug else "about:blank")
    assert problem["status"] == status
    assert problem["title"]
    assert len(problem["detail"]) > 20
    assert problem["request_id"] == response.headers["x-request-id"]


async def test_a_missing_field_says_how_to_send_one() -> None:
    async with serving() as (client, _):
        problem = (await client.post("/segment", files={"file": ("a.png", PNG)})).json()
    assert "curl -F image=@photo.jpg" in problem["detail"]
    assert "'file'" in problem["detail"]


async def test_an_unknown_include_lists_what_there_is() -> None:
    async with serving() as (client, _):
        problem = (await client.post("/segment?include=mask", content=PNG)).json()
    assert problem["detail"] == "include has mask; it can have overlay, class_masks, class_overlays."


async def test_wrong_method_names_the_right_one() -> None:
    async with serving() as (client, _):
        refused = await client.get("/segment")
    assert refused.headers["allow"] == "POST"
    assert "it takes POST" in refused.json()["detail"]


async def test_options_in_the_form_are_sent_to_the_url() -> None:
    async with serving() as (client, _):
        refused = await client.post("/segment", files={"image": PNG}, data={"confidence": "true", "note": "mine"})
        taken = await client.post("/segment", files={"image": PNG}, data={"note": "mine"})
    assert refused.status_code == 400
    assert "/segment?confidence=true" in refused.json()["detail"]
    assert taken.status_code == 200  # what is nobody's option is nobody's business


async def test_a_full_house_refuses_before_reading() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(before=gate), max_in_flight=2) as (client, _):
        gate.entered.clear()
        gate.opened.clear()
        inside = [asyncio.create_task(client.post("/segment", content=PNG)) for _ in range(2)]
        await asyncio.to_thread(gate.entered.wait, 10)
        read: list[int] = []

        async def body() -> AsyncGenerator[bytes, None]:
            read.append(1)
            yield PNG

        refused = await client.post("/segment", content=body())
        gate.opened.set()
        assert [r.status_code for r in await asyncio.gather(*inside)] == [200, 200]
        assert (await client.post("/segment", content=PNG)).status_code == 200
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["type"] == "urn:alignseg:problem:overloaded"
    assert refused.json()["retry_after_s"] > 0
    assert read == []


async def test_a_damaged_picture_is_told_while_the_engine_is_busy() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(max_batch=1, before=gate)) as (client, _):
        gate.entered.clear()
        gate.opened.clear()
        good = asyncio.create_task(client.post("/segment", content=PNG))
        await asyncio.to_thread(gate.entered.wait, 10)
        bad = await asyncio.wait_for(client.post("/segment", content=NOISE[:-300]), 5)
        assert (bad.status_code, good.done()) == (400, False)
        gate.opened.set()
        assert (await good).status_code == 200


async def test_a_deadline_that_passes_is_answered_in_time() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(before=gate), request_timeout_ms=50) as (client, app):
        gate.opened.clear()
        began = time.monotonic()
        response = await client.post("/segment", content=PNG)
        assert time.monotonic() - began < 2
        assert (response.status_code, response.json()["type"]) == (504, "urn:alignseg:problem:deadline-exceeded")
        assert app.state.pipeline.admission.in_flight == 1  # the engine still has it
        gate.opened.set()
        await until(lambda: app.state.pipeline.admission.in_flight == 0)


async def test_a_client_that_left_frees_its_place_and_is_not_computed() -> None:
    gate = Gate()
    gate.opened.set()
    engine = FakeEngine(max_batch=1, before=gate)
    async with serving(engine) as (client, app):
        gate.entered.clear()
        gate.opened.clear()
        stays = asyncio.create_task(client.post("/segment", content=PNG))
        await asyncio.to_thread(gate.entered.wait, 10)
        await asyncio.wait_for(hang_up_after_the_body(app), 5)
        await until(lambda: app.state.pipeline.admission.in_flight == 1)
        gate.opened.set()
        assert (await stays).status_code == 200
    assert len(engine.batches) == 3  # two to warm up, one that stayed


async def hang_up_after_the_body(app: object) -> None:
    messages = [{"type": "http.request", "body": PNG}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, object]:
        if len(messages) == 1:
            await asyncio.sleep(0.05)
        return messages.pop(0)

    async def send(message: dict[str, object]) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": "/segment", "headers": [], "query_string": b"", "state": {}}
    await app(scope, receive, send)  # type: ignore[operator]


async def test_a_failing_engine_is_a_500_that_says_so_and_recovers() -> None:
    engine = FakeEngine()
    async with serving(engine) as (client, _):
        engine.before = fail = _raise(EngineError("the kernel failed."))
        response = await client.post("/segment", content=PNG)
        assert (response.status_code, response.json()["type"]) == (500, "urn:alignseg:problem:inference-failed")
        assert "the kernel failed" in response.json()["detail"]
        assert fail is engine.before
        assert (await client.get("/healthz/ready")).status_code == 503
        engine.before = lambda batch: None
        assert (await client.get("/healthz/ready")).status_code == 200  # by an inference of its own
        assert (await client.post("/segment", content=PNG)).status_code == 200


async def test_a_lost_engine_fails_liveness() -> None:
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


async def test_a_hanging_engine_is_not_ready() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(before=gate), request_timeout_ms=20) as (client, _):
        gate.opened.clear()
        await client.post("/segment", content=PNG)
        await asyncio.sleep(0.03)
        assert "one engine call has taken" in (await client.get("/health")).json()["detail"]
        gate.opened.set()


async def test_readiness_answers_though_its_own_inference_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.inference.health._PROBE_S", 0.02)
    engine = FakeEngine()
    async with serving(engine) as (client, _):
        engine.before = _raise(EngineError("failed once."))
        await client.post("/segment", content=PNG)
        engine.before = gate = Gate()
        response = await asyncio.wait_for(client.get("/healthz/ready"), 5)
        assert (response.status_code, "failed once" in response.text) == (503, True)
        gate.opened.set()


async def test_a_bug_is_a_problem_too() -> None:
    async with serving() as (client, app):
        app.state.pipeline.segment = lambda *_: 1 / 0
        response = await client.post("/segment", content=PNG, headers={"X-Request-Id": "mine-1"})
    assert response.status_code == 500
    assert response.json()["request_id"] == response.headers["x-request-id"] == "mine-1"
    assert "ZeroDivision" not in response.text


async def test_shutting_down_takes_no_new_work() -> None:
    async with serving() as (client, app):
        app.state.pipeline.stop_admitting()
        response = await client.post("/segment", content=PNG)
        assert (response.status_code, response.json()["type"]) == (503, "urn:alignseg:problem:not-ready")
        assert (await client.get("/healthz/ready")).status_code == 503
        assert (await client.get("/healthz/live")).status_code == 200


async def test_many_at_once() -> None:
    async with serving() as (client, _):
        pictures = [np.full((16, 24, 3), i, dtype=np.uint8) for i in range(40)]
        answers = await asyncio.gather(
            *(client.post("/segment", content=encoded(p), headers={"Accept": "image/png"}) for p in pictures)
        )
    assert [int(np.asarray(opened(a.content))[0, 0]) for a in answers] == [i % 4 for i in range(40)]


async def test_a_camvid_frame(camvid_frame: object) -> None:
    from pathlib import Path

    assert isinstance(camvid_frame, Path)
    data = camvid_frame.read_bytes()
    async with serving() as (client, _):
        body = (await client.post("/segment", content=data)).json()
    assert (body["width"], body["height"]) == Image.open(io.BytesIO(data)).size


def _raise(error: Exception) -> object:
    def before(batch: object) -> None:
        raise error

    return before
