"""The ML backend over HTTP, with a real AlignSeg server; Label Studio itself is an httpx transport."""

import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from alignseg_serve import cli
from alignseg_serve.annotation.label_studio import Predictor
from alignseg_serve.annotation.label_studio_app import create_app
from alignseg_serve.annotation.label_studio_images import LabelStudioImages
from alignseg_serve.client import Client
from service.errors import AlignSegError
from tests.alignseg_serve.annotation.test_brush_rle import decode
from tests.alignseg_serve.annotation.test_keyhole import filled
from tests.support.fake_engine import FakeEngine, encoded, striped
from tests.support.live_server import live

IMAGE = striped()
PNG = encoded(IMAGE)
BRUSHES = """<View><Image name="image" value="$picture"/><BrushLabels name="tag" toName="image">
<Label value="ground"/><Label value="car"/><Label value="person"/></BrushLabels></View>"""
POLYGONS = BRUSHES.replace("BrushLabels", "PolygonLabels")
JWT = "a.b.c"


class LabelStudio:
    """Serves one image to those who have its token. addresses: of the requests."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.access = "first"

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.addresses.append(str(request.url))
        if request.url.path == "/api/token/refresh":
            self.access += "+"
            return httpx.Response(200, json={"access": self.access})
        if request.headers["Authorization"] not in {"Token secret", f"Bearer {self.access}"}:
            return httpx.Response(401)
        if request.url.path == "/data/moved.png":
            return httpx.Response(302, headers={"Location": "http://elsewhere/a.png"})
        if request.url.path == "/data/upload/1/text.png":
            return httpx.Response(200, content=b"no image")
        return httpx.Response(200, content=PNG) if request.url.path == "/data/upload/1/a.png" else httpx.Response(404)


@pytest.fixture
def studio() -> LabelStudio:
    return LabelStudio()


class Backend:
    """The application, called in this thread."""

    def __init__(self, predictor: Predictor) -> None:
        self._app = create_app(predictor)

    async def send(self, method: str, path: str, **content: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="http://backend") as client:
            return await client.request(method, path, **content)

    async def predict(self, *addresses: object, config: str = BRUSHES) -> list[dict[str, Any]]:
        tasks = [{"id": i, "data": {"picture": address}} for i, address in enumerate(addresses)]
        body = {"tasks": tasks, "project": "1.2", "label_config": config, "params": {}}
        response = await self.send("POST", "/predict", json=body)
        assert response.status_code == 200, response.text
        return list(response.json()["results"])


@contextmanager
def backend(
    studio: LabelStudio, *, key: str = "secret", engine: FakeEngine | None = None, **options: Any
) -> Generator[Backend, None, None]:
    images = LabelStudioImages("http://studio:8080", key, httpx.MockTransport(studio))
    options.setdefault("classes", ("road=ground", "tree=ground", "car", "sky"))
    with live(engine) as url, Client(url) as client:
        yield Backend(Predictor(client, images, **options))
    images.close()


def expected(label: str) -> Any:
    return np.isin(IMAGE[..., 0], [0, 2] if label == "ground" else [3])


async def test_brush_masks_are_the_server_s(studio: LabelStudio) -> None:
    with backend(studio) as app:
        (prediction,) = await app.predict("/data/upload/1/a.png")
        assert (await app.send("GET", "/health")).json()["status"] == "UP"
        setup = await app.send("POST", "/setup", json={"project": "1.2", "schema": BRUSHES})
    assert setup.json() == {"model_version": "fake 1"}
    assert prediction["model_version"] == "fake 1"
    assert prediction["score"] == pytest.approx(200 / 255, abs=1e-4)
    regions = prediction["result"]
    assert [region["value"]["brushlabels"] for region in regions] == [["ground"], ["car"]]  # the project has no sky
    for region, label in zip(regions, ("ground", "car"), strict=True):
        assert (region["from_name"], region["to_name"], region["type"]) == ("tag", "image", "brushlabels")
        assert (region["original_width"], region["original_height"]) == (24, 16)
        assert region["score"] == pytest.approx(200 / 255, abs=1e-4)
        mask = decode(bytes(region["value"]["rle"])).reshape(16, 24, 4)[..., 3]
        np.testing.assert_array_equal(mask, expected(label) * np.uint8(255))


async def test_polygons_fill_to_the_server_s(studio: LabelStudio) -> None:
    with backend(studio) as app:
        (prediction,) = await app.predict("http://studio:8080/data/upload/1/a.png", config=POLYGONS)
    for label in ("ground", "car"):
        own = [r["value"]["points"] for r in prediction["result"] if r["value"]["polygonlabels"] == [label]]
        rings = [[[round(x * 24 / 100), round(y * 16 / 100)] for x, y in points] for points in own]
        np.testing.assert_array_equal(sum(filled(ring, 16, 24) for ring in rings), expected(label))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://elsewhere:8080/data/upload/1/a.png", "is not on http://studio:8080/"),
        ("https://studio:8080/data/upload/1/a.png", "is not on"),
        ("//elsewhere/a.png", "is not on"),
        ("s3://bucket/a.png", "is not on"),
        (None, "is not on"),
        ("http://a:b/", "is not a URL"),
        ("/data/moved.png", "returned 302"),
        ("/data/gone.png", "returned 404"),
        ("/data/upload/1/text.png", "task 0: "),
    ],
)
async def test_an_image_that_cannot_be_used_fails_alone(
    studio: LabelStudio, address: object, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with backend(studio) as app, caplog.at_level(logging.WARNING):
        failed, done = await app.predict(address, "/data/upload/1/a.png")
    assert "result" not in failed
    assert reason in failed["error"]
    assert failed["error"] in caplog.messages
    assert len(done["result"]) == 2
    assert all(url.startswith("http://studio:8080/") for url in studio.addresses)


async def test_a_personal_access_token_is_exchanged_and_renewed(studio: LabelStudio) -> None:
    with backend(studio, key=JWT) as app:
        assert (await app.predict("/data/upload/1/a.png"))[0]["result"]
        assert (await app.predict("/data/upload/1/a.png"))[0]["result"]
        assert sum("refresh" in url for url in studio.addresses) == 1
        studio.access = "expired the first"
        assert (await app.predict("/data/upload/1/a.png"))[0]["result"]
    assert sum("refresh" in url for url in studio.addresses) == 2


async def test_a_wrong_token_is_named(studio: LabelStudio) -> None:
    with backend(studio, key="other") as app:
        (failed,) = await app.predict("/data/upload/1/a.png")
    assert "returned 401. Set LABEL_STUDIO_API_KEY to a valid token" in failed["error"]


async def test_a_model_without_confidence_gives_no_scores(studio: LabelStudio) -> None:
    engine = FakeEngine()
    engine.has_confidence = False
    with backend(studio, engine=engine) as app:
        (prediction,) = await app.predict("/data/upload/1/a.png")
    assert "score" not in prediction
    assert all("score" not in region for region in prediction["result"])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "without tasks and label_config"),
        (b"[]", "without tasks and label_config"),
        (json.dumps({"tasks": [1], "label_config": BRUSHES}).encode(), "of another type"),
        (json.dumps({"tasks": [], "label_config": "<View>"}).encode(), "is not XML"),
        (json.dumps({"tasks": [], "label_config": "<View/>"}).encode(), "no labels for regions"),
        (json.dumps({"tasks": [], "label_config": BRUSHES.replace("ground", "a").replace("car", "b")}).encode(),
         "No label of the project is a class of the server. Labels: a, b, person; classes: ground, sky, car."),
    ],
)  # fmt: skip
async def test_an_invalid_request_is_422_with_the_reason(studio: LabelStudio, body: bytes, reason: str) -> None:
    with backend(studio) as app:
        response = await app.send("POST", "/predict", content=body)
    assert response.status_code == 422
    assert reason in response.json()["error"]


async def test_a_server_that_cannot_be_reached_is_503(studio: LabelStudio) -> None:
    images = LabelStudioImages("http://studio:8080", "secret", httpx.MockTransport(studio))
    with live() as url:
        client = Client(url, timeout_s=1)
        app = Backend(Predictor(client, images, ("road=ground",)))
    task = {"id": 1, "data": {"picture": "/data/upload/1/a.png"}}
    response = await app.send("POST", "/predict", json={"tasks": [task], "label_config": BRUSHES})
    client.close()
    assert response.status_code == 503
    assert "error" in response.json()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--server", "http://127.0.0.1:9", "--label-studio", "http://studio:8080"], "127.0.0.1:9"),
        (
            ["--server", "nothing", "--label-studio", "http://studio:8080"],
            "expected a URL such as http://localhost:8000",
        ),
        (["--label-studio", "studio"], "expected a URL such as http://localhost:8080"),
        (["--label-studio", "http://studio:8080", "--classes", "@missing"], "@missing"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], reason: str) -> None:
    result = CliRunner().invoke(cli.app, ["label-studio", *arguments], env={"LABEL_STUDIO_API_KEY": "secret"})
    assert result.exit_code == cli.USAGE_ERROR
    assert reason in " ".join(result.output.split())


def test_the_address_of_label_studio_must_be_a_url() -> None:
    with pytest.raises(AlignSegError, match="expected a URL such as http://localhost:8080"):
        LabelStudioImages("studio:8080", "secret")
