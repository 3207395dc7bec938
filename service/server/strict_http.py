"""What is no HTTP: answered as a problem like every other (RFC 9457), in its turn, and counted."""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.http.security_headers import HEADERS

NO_HTTP: Final = "this is no well-formed HTTP/1.1. Send what curl sends; https needs a proxy in front."
_HOST: Final = re.compile(rb"[\w.~!$&'()*+,;=:%\[\]-]*", re.ASCII)  # a name or an address, and a port


class StrictProtocol(HttpToolsProtocol):
    """uvicorn's, with a kind word for what is malformed, and with HTTP's own rule on Host, which uvicorn does not hold.

    on_malformed: called for each such message.
    """

    def __init__(self, *args: Any, on_malformed: Callable[[], object] = lambda: None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._on_malformed = on_malformed
        self._wrong = NO_HTTP
        self._last_words: bytes | None = None  # for what is malformed, told once all before it have their answers
        self._in_head = False
        self._in_message = False

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_message = self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Spaces around a value are none of it (RFC 9112, section 5.1); the parser leaves those behind it."""
        super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """The head is there. Raises ValueError, through the parser, for one that HTTP forbids."""
        version = self.parser.get_http_version()
        self._in_message = self._in_head = False  # for whatever is raised here
        if (wrong := wrong_host(self.headers, version)) is not None:
            self._wrong = wrong
            raise ValueError(wrong)
        self.expect_100_continue &= version != "1.0"  # which knows of no such answer (RFC 9110, section 10.1.1)
        super().on_headers_complete()
        self._in_message = True

    def on_message_complete(self) -> None:
        """The body is there."""
        self._in_message = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next message, or tell why there is none."""
        was_last = not self.pipeline
        super().on_response_complete()
        if was_last and self._last_words is not None:
            self._say(self._last_words)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn says to a message that does not parse."""
        self.end_with_400(self._wrong)

    def end_with_400(self, detail: str) -> None:
        """Hear no more; answer this message once those before it have their answers, and close."""
        if self._last_words is not None:
            return
        self._on_malformed()
        self._last_words = _bad_request(detail)
        before = bool(self.pipeline) if self._in_body else not self._is_idle()
        if self._in_body and before:
            self.pipeline.popleft()  # this one: it waits for its turn
        elif self._in_body and self.cycle.response_started:
            self.transport.close()  # its answer has begun already
        self._in_message = self._in_head = False
        if not before:
            self._say(self._last_words)

    @property
    def _has_ended(self) -> bool:
        """Whether all that comes is to be passed over."""
        return self._last_words is not None

    @property
    def _in_body(self) -> bool:
        return self._in_message and not self._in_head

    def _is_idle(self) -> bool:
        """Whether all messages that came have their answers."""
        return self.cycle is None or self.cycle.response_complete

    def _say(self, last_words: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(last_words)
            self.transport.close()


def wrong_host(headers: Iterable[tuple[bytes, bytes]], http_version: str) -> str | None:
    """Why a server must answer such a head with 400 (RFC 9112, section 3.2), if it must."""
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and http_version == "1.1"):
        return f"the head has {len(hosts)} Host headers; HTTP/1.1 wants one. Send what curl sends."
    if hosts and not _HOST.fullmatch(hosts[0]):
        return f"Host is {hosts[0][:100].decode('latin-1')!r}; expected a name or an address, and perhaps a port."
    return None


def _bad_request(detail: str) -> bytes:
    body = orjson.dumps({"type": "about:blank", "title": "Bad Request", "status": 400, "detail": detail})
    headers = {
        **HEADERS,
        b"content-type": b"application/problem+json",
        b"content-length": b"%d" % len(body),
        b"connection": b"close",
    }
    head = b"".join(b"%s: %s\r\n" % header for header in headers.items())
    return b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + body
