"""The client with a scripted transport: errors, retries, unexpected responses."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from alignseg_serve.client import AsyncClient, Client, errors
from alignseg_serve.client.schemas import encode_image, parse_retry_after
from tests.support.fake_engine import encoded, opened, striped

CLASSES = {"model": "m", "version": "1", "classes": [{"id": 0, "name": "road", "color": [1, 2, 3]}]}
GOOD = httpx.Response(200, json=CLASSES)


def error_response(status: int, retry: float | None = None, **headers: str) -> httpx.Response:
    problem = {"type": "urn:x", "title": "No", "status": status, "detail": "because", "request_id": "r1"}
    problem |= {} if retry is None else {"retry_after_s": retry}
    return httpx.Response(status, json=problem, headers={"Content-Type": "application/problem+json", **headers})


class Script:
    """Responses in order; the last one is repeated."""

    def __init__(self, *responses: httpx.Response | Exception) -> None:
        self.responses = list(responses)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        response = self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]
        if isinstance(response, Exception):
            raise response
        return httpx.Response(response.status_code, headers=response.headers, content=response.content)


def client(script: Callable[[httpx.Request], httpx.Response], **options: Any) -> Client:
    return Client("http://server/prefix/", transport=httpx.MockTransport(script), **options)


def test_it_retries_after_retry_after() -> None:
    script = Script(error_response(429, 0.02), error_response(503, 0.01), GOOD)
    began = time.monotonic()
    with client(script) as c:
        assert c.classes().classes[0].color == (1, 2, 3)
    assert time.monotonic() - began >= 0.03
    assert [str(r.url) for r in script.requests] == ["http://server/prefix/classes"] * 3
    left = [int(r.headers["X-Request-Timeout-Ms"]) for r in script.requests]
    assert 60_000 >= left[0] > left[1] > left[2] > 50_000


async def test_the_async_client_retries_too() -> None:
    script = Script(error_response(429, 0.01), GOOD)
    async with AsyncClient("http://server", transport=httpx.MockTransport(script)) as c:
        assert (await c.classes()).model == "m"
    assert len(script.requests) == 2


def test_it_does_not_wait_beyond_its_timeout() -> None:
    script = Script(error_response(429, 30))
    began = time.monotonic()
    with client(script, timeout_s=0.2) as c, pytest.raises(errors.Overloaded) as caught:
        c.classes()
    assert time.monotonic() - began < 20
    assert caught.value.problem.retry_after_s == 30
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, errors.InvalidImageError), (413, errors.InvalidImageError), (415, errors.InvalidImageError),
     (401, errors.AuthenticationError), (504, errors.ServerTimeout), (500, errors.ServerError),
     (404, errors.ServerError)],
)  # fmt: skip
def test_errors_that_are_not_retried(status: int, kind: type[errors.ServerProblem]) -> None:
    script = Script(error_response(status))
    with client(script) as c, pytest.raises(kind, match=r"No: because \(request r1\)") as caught:
        c.segment(b"x")
    assert caught.value.problem.type == "urn:x"
    assert len(script.requests) == 1


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"[1]", b""])
def test_an_error_of_a_proxy_without_problem_json(body: bytes) -> None:
    with client(Script(httpx.Response(502, content=body))) as c, pytest.raises(errors.ServerError, match="502"):
        c.classes()


BROKEN = httpx.RemoteProtocolError("Server disconnected without sending a response.")


@pytest.mark.parametrize("broken", [BROKEN, httpx.ReadError(""), httpx.Response(500, text="Internal Server Error")])
def test_a_broken_connection_is_retried_once(broken: httpx.Response | Exception) -> None:
    script = Script(broken, GOOD)
    with client(script) as c:
        assert c.classes().model == "m"
    assert len(script.requests) == 2


async def test_a_broken_connection_is_not_retried_twice() -> None:
    script = Script(BROKEN)
    async with AsyncClient("http://server", transport=httpx.MockTransport(script)) as c:
        with pytest.raises(errors.ConnectionFailed, match="disconnected"):
            await c.classes()
    assert len(script.requests) == 2
    with client(script := Script(BROKEN), timeout_s=0.05) as c, pytest.raises(errors.ConnectionFailed):
        c.classes()
    assert len(script.requests) == 1  # no time was left for a retry


@pytest.mark.parametrize("body", [{"json": {}}, {"json": []}, {"text": "hello"}, {"json": CLASSES | {"classes": [7]}}])
def test_an_unexpected_response(body: dict[str, Any]) -> None:
    with client(Script(httpx.Response(200, **body))) as c:
        with pytest.raises(errors.UnexpectedResponse, match="Check that it is an AlignSeg server"):
            c.classes()
        with pytest.raises(errors.UnexpectedResponse):
            c.segment(b"x")


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ReadTimeout(""), httpx.DecodingError("gzip")])
def test_a_failed_connection(error: Exception) -> None:
    with client(Script(error)) as c:
        assert c.ready() is False
        with pytest.raises(errors.ConnectionFailed, match="that the server is running"):
            c.classes()


def test_the_api_key_is_sent() -> None:
    script = Script(GOOD)
    with client(script, api_key="secret") as c:
        c.classes()
    assert script.requests[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://x"])
def test_an_invalid_url_is_rejected(url: str) -> None:
    with pytest.raises(ValueError, match="expected a URL"):
        Client(url)


def test_every_kind_of_image_is_encoded(tmp_path: Path) -> None:
    pixels = striped()
    path = tmp_path / "a.png"
    path.write_bytes(encoded(pixels))
    assert encode_image(path) == encode_image(str(path)) == encode_image(path.read_bytes()) == path.read_bytes()
    for image in (pixels, pixels[::-1][::-1], Image.fromarray(pixels)):
        np.testing.assert_array_equal(np.asarray(opened(encode_image(image))), pixels)
    assert opened(encode_image(Image.new("CMYK", (2, 3)))).mode == "RGB"


def test_a_pillow_image_is_sent_as_its_pixels_are(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (30, 20), "red").save(tmp_path / name, exif=exif)
        sent = opened(encode_image(Image.open(tmp_path / name)))
        assert (sent.size, dict(sent.getexif())) == ((30, 20), {})
    palette = Image.new("P", (2, 3))
    palette.info["transparency"] = 0
    assert opened(encode_image(palette)).info["transparency"] == 0


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_arrays_of_another_shape_or_type_are_rejected(image: Any) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
        encode_image(image)


def test_another_type_is_rejected() -> None:
    with pytest.raises(TypeError, match="got int"):
        encode_image(7)  # type: ignore[arg-type]


def test_retry_after_in_both_forms() -> None:
    assert parse_retry_after("7") == 7
    assert parse_retry_after("soon") is None
    assert parse_retry_after("") is None
    soon = parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True))
    assert soon is not None
    assert 28 < soon <= 30
    assert parse_retry_after(format_datetime(datetime.now(UTC) - timedelta(seconds=30), usegmt=True)) == 0
    assert parse_retry_after("Sun, 06 Nov 1994 08:49:37 -0000") == 0
