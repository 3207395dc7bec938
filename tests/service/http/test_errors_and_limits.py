from typing import Any

import httpx
import pytest

from service.app import create_admin_app
from service.errors import NotAcceptable
from service.http.content_negotiation import choose
from service.http.openapi.segment import SegmentAnswer, SeveralAnswers
from service.rendering import media_types
from service.rendering.formats import RENDERERS
from service.rendering.media_types import JPEG, JSON, MULTIPART, NPY, PNG, WEBP, ZIP
from tests.support.fake_engine import COLORS, encoded, serving, striped


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [("", JSON), ("*/*", JSON), ("image/png", PNG), ("image/*", PNG), ("application/json", JSON),
     ("image/png, */*", PNG), ("image/png;q=0.5, application/json", JSON), ("image/png;q=0.5, */*;q=0.1", PNG),
     ("application/json;q=0, */*", PNG), ("image/png, application/json", PNG), ("application/json, image/png", JSON),
     ("text/html, application/xhtml+xml, image/avif, */*;q=0.8", JSON), ("IMAGE/PNG", PNG),
     ("text/html, image/avif, image/webp, */*;q=0.8", WEBP), ("image/jpeg", JPEG),
     ("image/*;q=0.9, image/png;q=0.1", JPEG),
     ("application/x-npy", NPY), ("application/zip, multipart/*;q=0.9", ZIP), ("multipart/mixed", MULTIPART),
     ("application/*", JSON),
     ("*/*;q=0.1, image/png;q=0.2", PNG), ("image/png;q=banana, application/json", JSON),
     ("image/png;q=nan, application/json;q=0.5", JSON), ("image/png;q=2, application/json", JSON),
     ("text/html, */*;q=0.1", JSON)],
)  # fmt: skip
def test_accept(accept: str, chosen: str) -> None:
    assert choose(accept, tuple(RENDERERS)) == chosen


@pytest.mark.parametrize(
    "accept", ["text/html", "image/gif", "*/*;q=0", "nonsense", "image/png;q=0", "image/png;q=inf"]
)
def test_nothing_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="on offer are application/json, image/png, image/jpeg"):
        choose(accept, tuple(RENDERERS))


async def test_classes() -> None:
    async with serving() as (client, _):
        body = (await client.get("/classes")).json()
    assert body["classes"][1] == {"id": 1, "name": "sky", "color": [128, 128, 128]}
    assert len(body["classes"]) == len(COLORS)


async def test_ready() -> None:
    async with serving() as (client, _):
        for path in ("/healthz/ready", "/health"):
            assert (await client.get(path)).json() == {"status": "ready", "model": "fake", "version": "1"}


PROBED = ["/", "/classes", "/docs", "/health", "/healthz/live", "/healthz/ready", "/metrics", "/v2/health/ready"]


@pytest.mark.parametrize("path", PROBED)
async def test_monitors_may_ask_for_the_head_alone(path: str) -> None:
    async with serving() as (client, _):
        head, whole = await client.head(path), await client.get(path)
    assert head.status_code == whole.status_code == 200
    assert head.headers["content-type"] == whole.headers["content-type"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/segment", "POST"), ("PUT", "/", "GET, HEAD, POST"), ("POST", "/classes", "GET, HEAD"),
     ("OPTIONS", "/metrics", "GET, HEAD")],
)  # fmt: skip
async def test_every_method_of_a_path_is_named(method: str, path: str, allowed: str) -> None:
    async with serving() as (client, _):
        refused = await client.request(method, path)
    assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
    if path != "/":
        assert refused.json()["detail"].startswith(f"{path} does not take {method}, it takes {allowed}.")


@pytest.mark.parametrize("path", ["/nowhere", "/segment/"])
async def test_elsewhere_there_is_nothing(path: str) -> None:
    async with serving() as (client, _):
        refused = await client.post(path, content=encoded(striped()))
    assert refused.status_code == 404
    assert refused.json()["detail"] == f"there is nothing at {path}. GET /docs shows what there is."


async def test_the_admin_port_points_to_no_docs_that_it_lacks() -> None:
    async with serving() as (_, app):
        transport = httpx.ASGITransport(create_admin_app(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as admin:
            assert (await admin.head("/healthz/ready")).status_code == 200
            refused = await admin.get("/docs")
    assert refused.json()["detail"] == "there is nothing at /docs."


async def test_request_ids_are_taken_given_and_kept_clean() -> None:
    async with serving() as (client, _):
        assert (await client.get("/classes", headers={"X-Request-Id": "abc-1"})).headers["x-request-id"] == "abc-1"
        made = [(await client.get("/classes")).headers["x-request-id"] for _ in range(2)]
        dirty = await client.get("/classes", headers={"X-Request-Id": "two words"})
    assert len(set(made)) == 2
    assert " " not in dirty.headers["x-request-id"]


async def test_every_operation_has_a_line_and_an_example_like_its_answer() -> None:
    async with serving() as (client, _):
        paths = (await client.get("/openapi.json")).json()["paths"]
        infer = paths["/v2/models/{model}/infer"]["post"]
        request = infer["requestBody"]["content"]["application/json"]["example"]
        real = {
            "/classes": (await client.get("/classes")).json(),
            "/": (await client.post("/", content=encoded(striped()))).json(),
            "/v2/models/{model}/infer": (await client.post("/v2/models/fake/infer", json=request)).json(),
        }
    for path, operations in paths.items():
        for operation in operations.values():
            assert len(operation["summary"].split()) > 1, path
            if path in real:
                told = operation["responses"]["200"]["content"]["application/json"]["example"]
                assert form(told) == form(real[path])


def form(value: Any) -> Any:
    """Names and types, lists by their first element."""
    if isinstance(value, dict):
        return {name: form(of) for name, of in value.items()}
    return [form(value[0])] if isinstance(value, list) else type(value)


async def test_openapi_tells_both_bodies_and_a_real_answer() -> None:
    async with serving() as (client, _):
        spec = (await client.get("/openapi.json")).json()
        real = (await client.post("/segment", content=encoded(striped()))).json()
    operation = spec["paths"]["/segment"]["post"]
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "image/*", "application/octet-stream"}
    answer = operation["responses"]["200"]["content"]
    forms = {part["$ref"].rsplit("/")[-1] for part in answer["application/json"]["schema"]["anyOf"]}
    assert forms == {"SegmentAnswer", "SeveralAnswers"}
    for example in answer["application/json"]["examples"].values():
        form = SeveralAnswers if "results" in example["value"] else SegmentAnswer
        form.model_validate(example["value"])
    assert list(answer["application/json"]["examples"]["mask as PNG"]["value"]) == list(real)
    assert set(answer) == set(media_types.ALL)
    assert "application/problem+json" in operation["responses"]["default"]["content"]
    assert "422" not in operation["responses"]
