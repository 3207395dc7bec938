import pytest

from service import media
from service.answers import RENDERERS
from service.errors import NotAcceptable
from service.media import JPEG, JSON, MULTIPART, NPY, PNG, WEBP, ZIP
from service.routes.negotiation import choose
from service.routes.openapi import SegmentAnswer, SeveralAnswers
from tests.fakes import COLORS, encoded, serving, striped


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
    assert choose(accept, list(RENDERERS)) == chosen


@pytest.mark.parametrize("accept", ["text/html", "image/gif", "*/*;q=0", "nonsense", "image/png;q=0", "image/png;q=inf"])
def test_nothing_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="on offer are application/json, image/png, image/jpeg"):
        choose(accept, list(RENDERERS))


async def test_classes() -> None:
    async with serving() as (client, _):
        body = (await client.get("/classes")).json()
    assert body["classes"][1] == {"id": 1, "name": "sky", "color": [128, 128, 128]}
    assert len(body["classes"]) == len(COLORS)


async def test_ready() -> None:
    async with serving() as (client, _):
        for path in ("/healthz/ready", "/health"):
            assert (await client.get(path)).json() == {"status": "ready", "model": "fake", "version": "1"}


async def test_request_ids_are_taken_given_and_kept_clean() -> None:
    async with serving() as (client, _):
        assert (await client.get("/classes", headers={"X-Request-Id": "abc-1"})).headers["x-request-id"] == "abc-1"
        made = [(await client.get("/classes")).headers["x-request-id"] for _ in range(2)]
        dirty = await client.get("/classes", headers={"X-Request-Id": "two words"})
    assert len(set(made)) == 2
    assert " " not in dirty.headers["x-request-id"]


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
    assert set(answer) == set(media.ALL)
    assert "application/problem+json" in operation["responses"]["default"]["content"]
    assert "422" not in operation["responses"]
