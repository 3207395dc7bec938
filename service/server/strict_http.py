"""Malformed HTTP: answered with an RFC 9457 problem document like every other error, in order, and counted."""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.http.security_headers import HEADERS
from service.observers import never_raises

NOT_HTTP: Final = "The message is not valid HTTP/1.1. Use an HTTP client such as curl; for HTTPS, put a proxy in front."
_HOST: Final = re.compile(rb"[\w.~!$&'()*+,;=:%\[\]-]*", re.ASCII)  # a name or an address, and a port


class StrictProtocol(HttpToolsProtocol):
    """uvicorn's protocol with problem documents for malformed messages, and with RFC 9112's rules on Host.

    on_malformed: called for each malformed message.
    """

    def __init__(self, *args: Any, on_malformed: Callable[[], object] = lambda: None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._on_malformed = never_raises(on_malformed)
        self._parse_error = NOT_HTTP
        self._pending_400: bytes | None = None  # sent once all messages before the malformed one are answered
        self._in_head = False
        self._in_message = False

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_message = self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Strip the spaces after a value, which are not part of it (RFC 9112, section 5.1); the parser keeps them."""
        super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """The head is complete. Raises ValueError, through the parser, if HTTP forbids such a head."""
        version = self.parser.get_http_version()
        self._in_message = self._in_head = False  # for whatever is raised here
        if (error := host_error(self.headers, version)) is not None:
            self._parse_error = error
            raise ValueError(error)
        self.expect_100_continue &= version != "1.0"  # HTTP/1.0 has no 100 response (RFC 9110, section 10.1.1)
        super().on_headers_complete()
        self._in_message = True

    def on_message_complete(self) -> None:
        """The body is complete."""
        self._in_message = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start the next message, or send the 400 that waited for this response."""
        was_last = not self.pipeline
        super().on_response_complete()
        if was_last and self._pending_400 is not None:
            self._write_and_close(self._pending_400)

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn when a message does not parse."""
        self.reject_with_400(self._parse_error)

    def reject_with_400(self, detail: str) -> None:
        """Ignore further input; answer this message after those before it, then close the connection."""
        if self._pending_400 is not None:
            return
        self._on_malformed()
        self._pending_400 = _bad_request(detail)
        others_unanswered = bool(self.pipeline) if self._in_body else not self._is_idle()
        if self._in_body and others_unanswered:
            self.pipeline.popleft()  # this message: its 400 takes the place of its response
        elif self._in_body and self.cycle.response_started:
            self.transport.close()  # too late for a 400
        self._in_message = self._in_head = False
        if not others_unanswered:
            self._write_and_close(self._pending_400)

    @property
    def _ignores_input(self) -> bool:
        """Whether a malformed message has ended the conversation."""
        return self._pending_400 is not None

    @property
    def _in_body(self) -> bool:
        return self._in_message and not self._in_head

    def _is_idle(self) -> bool:
        """Whether all messages received so far are answered."""
        return self.cycle is None or self.cycle.response_complete

    def _write_and_close(self, response: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(response)
            self.transport.close()


def host_error(headers: Iterable[tuple[bytes, bytes]], http_version: str) -> str | None:
    """Why a head must be rejected with 400 for its Host header (RFC 9112, section 3.2); None if it is valid."""
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and http_version == "1.1"):
        return f"The request has {len(hosts)} Host headers. Expected exactly one in HTTP/1.1."
    if hosts and not _HOST.fullmatch(hosts[0]):
        host = hosts[0][:100].decode("latin-1")
        return f"Host is {host!r}. Expected a name or an address, optionally with a port."
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
