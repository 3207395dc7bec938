"""Images inside JSON: POST /segment with application/json, Hugging Face's JSON, and what /invocations makes of them."""

import base64
import json
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from service.errors import BadRequest
from service.http import json_image
from tests.support.fake_engine import FakeEngine, encoded, serving, striped

PNG = encoded(striped())
TEXT = base64.b64encode(PNG).decode()


async def post(client: httpx.AsyncClient, document: Any, path: str = "/segment", **headers: str) -> httpx.Response:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return await client.post(path, content=content, headers={"Content-Type": "application/json", **headers})


def without_times(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return {name: value for name, value in response.json().items() if name != "timing_ms"}


@pytest.mark.parametrize(
    "text",
    [TEXT, f"data:image/png;base64,{TEXT}", f"DATA:;Base64,{TEXT}", base64.encodebytes(PNG).decode()],
    ids=["base64", "data URL", "data URL in capitals", "lines of 76 characters"],
)
@pytest.mark.parametrize("path", ["/segment", "/invocations"])
async def test_json_gives_the_same_response_as_the_image_itself(text: str, path: str) -> None:
    async with serving() as (client, _):
        expected = without_times(await client.post("/segment", content=PNG))
        assert without_times(await post(client, {"image": text}, path)) == expected


async def test_escapes_that_other_encoders_write_are_read() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    text = base64.b64encode(encoded(noise)).decode()
    escaped = text.replace("+", "\\u002B").replace("/", "\\/")  # .NET and PHP
    assert "\\u002B" in escaped
    assert "\\/" in escaped
    async with serving() as (client, _):
        response = await post(client, b'{"image": "%s"}' % escaped.encode())
    assert response.status_code == 200


async def test_members_are_the_query_parameters() -> None:
    query = "?masks=polygons&classes=road,sky&confidence=true&tile=auto"
    document = {"image": TEXT, "masks": "polygons", "classes": ["road", "sky"], "confidence": True, "tile": "auto"}
    async with serving() as (client, _):
        expected = without_times(await client.post(f"/segment{query}", content=PNG))
        assert without_times(await post(client, document)) == expected
        assert without_times(await post(client, {**document, "classes": "0,1", "alpha": None})) == expected
        assert without_times(await post(client, {"image": TEXT}, f"/segment{query}")) == expected


async def test_accept_and_alpha_apply() -> None:
    async with serving() as (client, _):
        overlay = await post(client, {"image": TEXT, "alpha": 0.5}, Accept="image/webp")
        expected = await client.post("/segment?alpha=0.5", content=PNG, headers={"Accept": "image/webp"})
        mask = await post(client, {"image": TEXT}, Accept="image/png; charset=utf-8")
    assert overlay.content == expected.content
    assert mask.headers["Content-Type"] == "image/png"


@pytest.mark.parametrize(
    ("document", "status", "message"),
    [
        (b"{", 400, "Invalid JSON"),
        (b"", 400, "Invalid JSON"),
        ([], 400, "a list instead of an object"),
        ({}, 400, "no member 'image'"),
        ({"image": [TEXT]}, 400, "a list as 'image'"),
        ({"image": ""}, 400, "'image' is empty"),
        ({"image": "data:image/png;base64,"}, 400, "'image' is empty"),
        ({"image": "data:image/png,%89PNG"}, 400, "data URL without base64"),
        ({"image": "https://example.com/a.jpg"}, 400, "fetches no URL"),
        ({"image": "file:///etc/passwd"}, 400, "fetches no URL"),
        ({"image": "photo.jpg"}, 400, "Invalid base64"),
        ({"image": "é" * 8}, 400, "Invalid base64"),
        ({"image": "aGVsbG8="}, 415, "expected JPEG"),
        ({"image": TEXT, "mask": "rle"}, 400, "Unknown members of the JSON: mask. Supported: image, masks,"),
        ({"image": TEXT, "masks": {}}, 400, "'masks' is {}"),
        ({"image": TEXT, "classes": [["road"]]}, 400, "'classes' is"),
        ({"image": TEXT, "alpha": 2}, 400, "alpha is '2'"),
        ({"image": TEXT, "classes": ["moon"]}, 400, "moon"),
        (b'{"image": "' + TEXT.encode() + b'", "masks": ' + b"[" * 2000 + b"]" * 2000 + b"}", 400, "limit 1000"),
    ],
)
async def test_errors_name_what_was_received(document: Any, status: int, message: str) -> None:
    async with serving() as (client, _):
        response = await post(client, document)
    assert response.status_code == status, response.text
    assert message in response.json()["detail"]


async def test_an_image_may_be_as_large_in_json_as_it_may_be_itself() -> None:
    limit = 300_000
    async with serving(max_body_bytes=limit) as (client, _):
        for extra, status in ((0, 415), (1, 413), (100_000, 413)):
            image = b"\0" * (limit + extra)
            text = base64.b64encode(image).decode()
            statuses = {
                "itself": (await client.post("/segment", content=image)).status_code,
                "json": (await post(client, {"image": text})).status_code,
                "hugging face": (await post(client, {"inputs": text}, "/")).status_code,
            }
            assert set(statuses.values()) == {status}, statuses


async def test_the_json_of_other_apis_keeps_its_limit() -> None:
    async with serving(max_body_bytes=1000) as (client, _):
        response = await post(client, b" " * 1001, "/v2/models/fake/infer")
    assert response.status_code == 413


async def test_json_that_would_take_many_times_its_size_is_rejected_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: bytes) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(orjson, "loads", fail)
    for body in (b"[" + b"0," * 2000 + b"0]", b"[" * 2000, b'{"":' * 2000):
        with pytest.raises(BadRequest, match="limit 1000"):
            json_image.loads(body)


async def test_ping_is_readiness_and_needs_no_key() -> None:
    async with serving(api_keys="secret", admin_port=0) as (client, app):
        ready = await client.get("/ping")
        assert (ready.status_code, ready.content) == (200, b"")
        assert (await post(client, {"image": TEXT}, "/invocations")).status_code == 401
        app.state.pipeline.stop_admitting()
        assert (await client.get("/ping")).status_code == 503


async def test_invocations_are_counted_under_their_own_path_and_rejected_under_load() -> None:
    async with serving(FakeEngine()) as (client, app):
        assert (await post(client, {"image": TEXT}, "/invocations")).status_code == 200
        assert app.state.early_rejection_rule.takes_post("/invocations")
        metrics = (await client.get("/metrics")).text
    assert 'alignseg_requests_total{route="/invocations",status="200"} 1.0' in metrics


def test_the_largest_json_has_room_for_the_largest_image() -> None:
    for size in (0, 1, 2, 3, 1_000_000):
        text = json.dumps({"image": "data:image/jpeg;base64," + base64.b64encode(b"\1" * size).decode()})
        assert len(text) <= json_image.max_json_bytes(size)
    assert np.isclose(json_image.max_json_bytes(30_000_000) / 40_000_000, 1.0, atol=0.01)
