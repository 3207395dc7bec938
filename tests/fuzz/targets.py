"""What is fuzzed: each target takes any bytes and raises nothing but the errors that become 4xx responses."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import numpy as np
from starlette.requests import Request

from service.errors import RequestError
from service.http import kserve_codec, uploads
from service.imaging.decode import decode
from service.settings import Settings

CORPUS: Final = Path(__file__).parent / "corpus"
BOUNDARY: Final = b"boundary"
MAX_PIXELS: Final = 1_000_000
_SETTINGS: Final = Settings(max_body_bytes=1_000_000)


def image(data: bytes) -> None:
    """Sniffing, limits and decoders: the pixels of a file, at most MAX_PIXELS of them."""
    try:
        pixels = decode(data, MAX_PIXELS)
    except RequestError:
        return
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS


def v2(data: bytes) -> None:
    """A request of Triton's protocol. The first two bytes are the length of its JSON; 0: all of it is JSON."""
    json_bytes = int.from_bytes(data[:2], "big") or None
    try:
        request = kserve_codec.parse(data[2:], json_bytes, kserve_codec.Limits(images=8, pixels=MAX_PIXELS))
    except RequestError:
        return
    assert 1 <= len(request.images) <= 8


def multipart(data: bytes) -> None:
    """A form whose boundary is BOUNDARY, in chunks of 64 bytes, as a slow client would send it."""
    headers = [(b"content-type", b"multipart/form-data; boundary=" + BOUNDARY)]
    app = SimpleNamespace(state=SimpleNamespace(pipeline=SimpleNamespace(settings=_SETTINGS)))
    chunks = [data[start : start + 64] for start in range(0, len(data), 64)]

    async def receive() -> dict[str, object]:
        body = chunks.pop(0) if chunks else b""
        return {"type": "http.request", "body": body, "more_body": bool(chunks)}

    request = Request({"type": "http", "method": "POST", "headers": headers, "app": app}, receive)
    try:
        images = asyncio.run(uploads.read_images(request, lambda count: None))
    except RequestError:
        return
    assert images and sum(len(image.data) for image in images) <= len(data)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {"image": image, "v2": v2, "multipart": multipart}
