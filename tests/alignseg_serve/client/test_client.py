"""The client against a transport that is scripted: refusals, waits, strange answers."""

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
from alignseg_serve.client.schemas import bytes_of, retry_after_s
from tests.support.fake_engine import encoded, opened, striped

CLASSES = {"model": "m", "version": "1", "classes": [{"id": 0, "name": "road", "color": [1, 2, 3]}]}
GOOD = httpx.Response(200, json=CLASSES)


def refusal(status: int, retry: float | None = None, **headers: str) -> httpx.Response:
    told = {"type": "urn:x", "title": "No", "status": status, "detail": "because", "request_id": "r1"}
    told |= {} if retry is None else {"retry_after_s": retry}
    return httpx.Response(status, json=told, headers={"Content-Type": "application/problem+json", **headers})


class Script:
    """Answers in order; the last one for ever after."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def client(script: Callable[[httpx.Request], httpx.Response], **options: Any) -> Client:
    return Client("http://server/prefix/", transport=httpx.MockTransport(script), **options)


def test_it_comes_back_when_told() -> None:
    script = Script(refusal(429, 0.02), refusal(503, 0.01), GOOD)
    began = time.monotonic()
    with client(script) as c:
        assert c.classes().classes[0].color == (1, 2, 3)
    assert time.monotonic() - began >= 0.03
    assert [str(r.url) for r in script.requests] == ["http://server/prefix/classes"] * 3
    left = [int(r.headers["X-Request-Timeout-Ms"]) for r in script.requests]
    assert 60_000 >= left[0] > left[1] > left[2] > 50_000


async def test_the_async_one_does_too() -> None:
    script = Script(refusal(429, 0.01), GOOD)
    async with AsyncClient("http://server", transport=httpx.MockTransport(script)) as c:
        assert (await c.classes()).model == "m"
    assert len(script.requests) == 2


def test_it_does_not_wait_past_its_deadline() -> None:
    script = Script(refusal(429, 30))
    began = time.monotonic()
    with client(script, timeout_s=0.2) as c, pytest.raises(errors.Overloaded) as caught:
        c.classes()
    assert time.monotonic() - began < 1
    assert caught.value.problem.retry_after_s == 30
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, errors.InvalidImageError), (413, errors.InvalidImageError), (415, errors.InvalidImageError),
     (401, errors.AuthenticationError), (504, errors.ServerTimeout), (500, errors.ServerError),
     (404, errors.ServerError)],
)  # fmt: skip
def test_refusals_that_are_final(status: int, kind: type[errors.ServerProblem]) -> None:
    script = Script(refusal(status))
    with client(script) as c, pytest.raises(kind, match=r"No: because \(request r1\)") as caught:
        c.segment(b"x")
    assert caught.value.problem.type == "urn:x"
    assert len(script.requests) == 1


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"[1]", b""])
def test_a_proxy_that_knows_no_problems(body: bytes) -> None:
    with client(Script(httpx.Response(502, content=body))) as c, pytest.raises(errors.ServerError, match="502"):
        c.classes()


LOST = httpx.RemoteProtocolError("Server disconnected without sending a response.")


@pytest.mark.parametrize("lost", [LOST, httpx.ReadError(""), httpx.Response(500, text="Internal Server Error")])
def test_a_server_that_was_lost_over_it_may_have_a_neighbour(lost: httpx.Response | Exception) -> None:
    script = Script(lost, GOOD)
    with client(script) as c:
        assert c.classes().model == "m"
    assert len(script.requests) == 2


async def test_neighbours_are_not_lost_one_after_the_other() -> None:
    script = Script(LOST)
    async with AsyncClient("http://server", transport=httpx.MockTransport(script)) as c:
        with pytest.raises(errors.ConnectionFailed, match="disconnected"):
            await c.classes()
    assert len(script.requests) == 2
    with client(script := Script(LOST), timeout_s=0.05) as c, pytest.raises(errors.ConnectionFailed):
        c.classes()
    assert len(script.requests) == 1  # there was no time for another


@pytest.mark.parametrize("body", [{"json": {}}, {"json": []}, {"text": "hello"}, {"json": CLASSES | {"classes": [7]}}])
def test_another_server(body: dict[str, Any]) -> None:
    with client(Script(httpx.Response(200, **body))) as c:
        with pytest.raises(errors.UnexpectedResponse, match="Is it an AlignSeg server"):
            c.classes()
        with pytest.raises(errors.UnexpectedResponse):
            c.segment(b"x")


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ReadTimeout(""), httpx.DecodingError("gzip")])
def test_nobody_there(error: Exception) -> None:
    with client(Script(error)) as c:
        assert c.ready() is False
        with pytest.raises(errors.ConnectionFailed, match="Is the server running"):
            c.classes()


def test_the_key_travels() -> None:
    script = Script(GOOD)
    with client(script, api_key="secret") as c:
        c.classes()
    assert script.requests[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://x"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError, match="expected a URL"):
        Client(url)


def test_all_kinds_of_pictures(tmp_path: Path) -> None:
    pixels = striped()
    path = tmp_path / "a.png"
    path.write_bytes(encoded(pixels))
    assert bytes_of(path) == bytes_of(str(path)) == bytes_of(path.read_bytes()) == path.read_bytes()
    for picture in (pixels, pixels[::-1][::-1], Image.fromarray(pixels)):
        np.testing.assert_array_equal(np.asarray(opened(bytes_of(picture))), pixels)
    assert opened(bytes_of(Image.new("CMYK", (2, 3)))).mode == "RGB"


def test_a_pillow_picture_is_sent_as_numpy_shows_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (30, 20), "red").save(tmp_path / name, exif=exif)
        sent = opened(bytes_of(Image.open(tmp_path / name)))
        assert (sent.size, dict(sent.getexif())) == ((30, 20), {})
    palette = Image.new("P", (2, 3))
    palette.info["transparency"] = 0
    assert opened(bytes_of(palette)).info["transparency"] == 0


@pytest.mark.parametrize("picture", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_arrays_that_are_no_pictures(picture: Any) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
        bytes_of(picture)


def test_what_is_no_picture_at_all() -> None:
    with pytest.raises(TypeError, match="got int"):
        bytes_of(7)  # type: ignore[arg-type]


def test_retry_after_in_both_forms() -> None:
    assert retry_after_s("7") == 7
    assert retry_after_s("soon") is None
    assert retry_after_s("") is None
    soon = retry_after_s(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True))
    assert soon is not None
    assert 28 < soon <= 30
    assert retry_after_s(format_datetime(datetime.now(UTC) - timedelta(seconds=30), usegmt=True)) == 0
    assert retry_after_s("Sun, 06 Nov 1994 08:49:37 -0000") == 0
