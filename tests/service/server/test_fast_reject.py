"""FastReject must read a head exactly as the parser does; what it does not fully understand it leaves to it."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.server.fast_reject import PlainPost, read_head

HEAD = b"POST /segment?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nX-Request-Id: abc-1\r\n\r\n"
HEADERS = ((b"host", b"x"), (b"content-length", b"5"), (b"x-request-id", b"abc-1"))


def test_a_plain_post_is_read() -> None:
    assert read_head(HEAD + b"12345") == PlainPost("/segment", HEADERS, "abc-1", 5, len(HEAD) + 5)
    assert read_head(HEAD) is not None  # the body comes later


def with_header(line: bytes) -> bytes:
    return b"POST /segment HTTP/1.1\r\nHost: x\r\n" + line + b"\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize(
    "line", [b"Connection: keep-alive", b"connection:Keep-Alive", b"X-Request-Id: two words", b"Accept: */*"]
)
def test_usual_headers_are_read(line: bytes) -> None:
    assert read_head(with_header(line)) is not None


@pytest.mark.parametrize(
    "line",
    [b"Connection: close", b"Connection: keep-alive, close", b"Transfer-Encoding: chunked", b"Expect: 100-continue",
     b"Upgrade: h2c", b"Content-Length: 7", b"X: a\nTransfer-Encoding: chunked", b"X: a\r\n folded"],
)  # fmt: skip
def test_headers_that_change_the_framing_are_left_to_the_parser(line: bytes) -> None:
    assert read_head(with_header(line)) is None


@pytest.mark.parametrize(
    "data",
    [b"", b"POST", HEAD[:-1], b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", HEAD.replace(b"1.1", b"1.0"),
     b"POST /segment HTTP/1.1\r\nHost: x\r\n\r\n", HEAD.replace(b"Length: 5", b"Length: -5"),
     HEAD.replace(b"Length: 5", b"Length: 5, 5"), HEAD.replace(b"/segment", b"http://x/segment"),
     HEAD.replace(b"Host: x", b"Host: " + b"x" * 9000), HEAD.replace(b"/segment", b"/%73egment"),
     HEAD.replace(b"/segment", b"/segment#x"), HEAD.replace(b"Host: x", b"Host: x" + b"\r\nA: b" * 98)],
)  # fmt: skip
def test_everything_else_is_left_to_the_parser(data: bytes) -> None:
    assert read_head(data) is None


class Parsed:
    """What the real parser makes of a head."""

    def __init__(self, data: bytes) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.lines: list[tuple[bytes, bytes]] = []
        self.complete = False
        self.url = b""
        self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value
        self.lines.append((name.lower(), value.rstrip(b" \t")))  # as strict_http.py does

    def on_headers_complete(self) -> None:
        self.complete = True


LINES = st.lists(
    st.sampled_from(
        [b"Host: x", b"Content-Length: 5", b"content-length:7", b"Content-Length: 5\t", b"Content-Length : 5",
         b"Transfer-Encoding: chunked", b"Connection: close", b"Connection: keep-alive", b"X-Request-Id: a", b" folded",
         b"X: \x80", b"X: a\nContent-Length: 9", b"X: a\rb", b"Y", b":", b"Content-Length: 05", b"X: Content-Length: 3",
         b"Upgrade: h2c", b"Expect: 100-continue", b"X-API-Key:\t a \t", b"X:  "]
    ),
    max_size=6,
)  # fmt: skip


@given(LINES, st.sampled_from([b"\r\n", b"\n"]))
def test_a_head_is_read_as_the_parser_reads_it(lines: list[bytes], end: bytes) -> None:
    data = b"POST /a?b HTTP/1.1\r\n" + b"".join(line + end for line in lines) + b"\r\n"
    if (post := read_head(data)) is None:
        return
    parsed = Parsed(data)
    assert parsed.complete
    assert int(parsed.headers[b"content-length"]) == post.body_size
    assert parsed.lines == list(post.headers)
    assert parsed.parser.should_keep_alive()
    assert b"transfer-encoding" not in parsed.headers
    assert parsed.url.partition(b"?")[0] == post.path.encode()
