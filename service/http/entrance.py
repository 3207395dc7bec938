"""What the head of a request says about its size and its deadline."""

import time
from collections.abc import Collection, Mapping
from typing import Final

from starlette.requests import Request

from service.admission.stalled_uploads import Permit
from service.errors import BadRequest
from service.http.uploads import refuse_by_header
from service.inference.pipeline import Pipeline

TIMEOUT: Final = "X-Request-Timeout-Ms"


def enter(request: Request, also: Collection[str] = ()) -> tuple[Permit, float]:
    """Take a place for a request, before a byte of its body is read.

    also: media types besides pictures' that the body may have.
    Returns the permit, to be released when the work ends, and the deadline on time.monotonic().
    Raises RequestError: Overloaded, NotReady, PayloadTooLarge, UnsupportedMediaType, BadRequest.
    """
    pipeline: Pipeline = request.app.state.pipeline
    settings = pipeline.settings
    deadline = time.monotonic() + timeout_ms(request.headers, settings.request_timeout_ms) / 1e3
    refuse_by_header(request, settings.max_body_bytes, also)
    size = announced_bytes(request.headers.get("content-length", ""), settings.max_body_bytes)
    return pipeline.admission.acquire(size, deadline), deadline


def announced_bytes(content_length: str, most: int) -> int:
    """How many bytes the body may have: without a Content-Length as many as are taken at all."""
    return min(int(content_length), most) if content_length.isdecimal() else most


def timeout_ms(headers: Mapping[str, str], most: float) -> float:
    """The client's own timeout, never longer than the server's. Raises BadRequest."""
    asked = headers.get(TIMEOUT)
    if asked is None:
        return most
    if not (asked.isascii() and asked.isdecimal() and len(asked) < 10 and int(asked)):
        raise BadRequest(f"{TIMEOUT} is {asked[:40]!r}; expected a whole number of milliseconds, such as 500.")
    return min(float(asked), most)
