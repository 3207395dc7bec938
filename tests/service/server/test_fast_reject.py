"""The shortcut for refusals must agree with the road: what it does not understand in full, it must leave alone."""

import asyncio
from typing import Any
from unittest.mock import Mock

import httptools
import orjson
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from service.server import protocol
from service.server.fast_reject import PlainPost, read_head
from service.server.flood import REST_S, Flood
from service.server.protocol import HEAD_TIMEOUT_S, GuardedHttpProtocol

HEAD = b"POST /segment?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nX-Request-Id: abc-1\r\n\r\n"
HEADERS = ((b"host", b"x"), (b"content-length", b"5"), (b"x-request-id", b"abc-1"))


def test_a_plain_post() -> None:
    assert read_head(HEAD + b"12345") == PlainPost("/segment", HEADERS, "abc-1", 5, len(HEAD) + 5)
    assert read_head(HEAD) is not None  # the body comes later


def with_header(line: bytes) -> bytes:
    return b"POST /segment HTTP/1.1\r\nHost: x\r\n" + line + b"\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize(
    "line", [b"Connection: keep-alive", b"connection:Keep-Alive", b"X-Request-Id: two words", b"Accept: */*"]
)
def test_usual_headers(line: bytes) -> None:
    assert read_head(with_header(line)) is not None


@pytest.mark.parametrize(
    "line",
    [b"Connection: close", b"Connection: keep-alive, close", b"Transfer-Encoding: chunked", b"Expect: 100-continue",
     b"Upgrade: h2c", b"Content-Length: 7", b"X: a\nTransfer-Encoding: chunked", b"X: a\r\n folded"],
)  # fmt: skip
def test_what_changes_the_framing_goes_by_the_road(line: bytes) -> None:
    assert read_head(with_header(line)) is None


@pytest.mark.parametrize(
    "data",
    [b"", b"POST", HEAD[:-1], b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", HEAD.replace(b"1.1", b"1.0"),
     b"POST /segment HTTP/1.1\r\nHost: x\r\n\r\n", HEAD.replace(b"Length: 5", b"Length: -5"),
     HEAD.replace(b"Length: 5", b"Length: 5, 5"), HEAD.replace(b"/segment", b"http://x/segment"),
     HEAD.replace(b"Host: x", b"Host: " + b"x" * 9000), HEAD.replace(b"/segment", b"/%73egment"),
     HEAD.replace(b"/segment", b"/segment#x"), HEAD.replace(b"Host: x", b"Host: x" + b"\r\nA: b" * 98)],
)  # fmt: skip
def test_everything_else_goes_by_the_road(data: bytes) -> None:
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
        self.lines.append((name.lower(), value.rstrip(b" \t")))  # as malformed.py does

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
def test_what_is_read_here_is_read_the_same_by_the_parser(lines: list[bytes], end: bytes) -> None:
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


class Connected:
    """A protocol on a transport that keeps what is written."""

    def __init__(self, reject: Any) -> None:
        config = Mock(loaded=True, root_path="", limit_concurrency=None, timeout_keep_alive=5, ws_protocol_class=None)
        config.reset_contextvars = False
        self.heard: list[bytes] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            self.heard.append(body)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})

        config.loaded_app = app
        self.state = Mock(connections=set(), tasks=set(), default_headers=[], total_requests=0)
        self.protocol = GuardedHttpProtocol(config, self.state, {}, reject=reject)
        self.transport = Mock(**{"is_closing.return_value": False, "get_extra_info.return_value": None})
        self.protocol.connection_made(self.transport)

    @property
    def written(self) -> bytes:
        return b"".join(call.args[0] for call in self.transport.write.call_args_list)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def close(self) -> None:
        self.protocol.connection_lost(None)


async def test_the_rest_of_a_refused_body_is_thrown_away_and_the_connection_goes_on() -> None:
    full = [True, True, False]
    connected = Connected(lambda data: (b"REFUSED", len(HEAD) + 5) if full.pop(0) else None)
    for part in (HEAD, b"12", b"345", HEAD + b"12345", HEAD + b"abcde"):
        connected.protocol.data_received(part)
    await connected.settle()
    assert connected.written.startswith(b"REFUSEDREFUSEDHTTP/1.1 200")
    assert connected.heard == [b"abcde"]
    connected.close()


async def test_the_rest_of_a_refused_body_and_the_next_message_in_one_packet() -> None:
    full = [True, False]
    connected = Connected(lambda data: (b"REFUSED", len(HEAD) + 5) if full.pop(0) else None)
    connected.protocol.data_received(HEAD + b"123")
    connected.protocol.data_received(b"45" + HEAD + b"abcde")
    await connected.settle()
    assert connected.heard == [b"abcde"]
    connected.close()


async def test_a_body_is_not_taken_for_a_message() -> None:
    asked: list[bytes] = []
    connected = Connected(asked.append)
    connected.protocol.data_received(HEAD.replace(b"Length: 5", b"Length: %d" % len(HEAD)))
    connected.protocol.data_received(HEAD)  # this is the body
    await connected.settle()
    assert connected.heard == [HEAD]
    assert len(asked) == 1
    connected.close()


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n"


async def test_who_offers_another_protocol_is_heard_in_this_one() -> None:
    connected = Connected(None)
    offering = HEAD.replace(b"Host: x\r\n", b"Host: x\r\n" + UPGRADE)
    for part in (offering + b"12345", offering, b"abcde", HEAD + b"\r\nupgrade"[:5]):
        connected.protocol.data_received(part)
        await connected.settle()
    assert connected.heard == [b"12345", b"abcde", b"\r\nupg"]
    assert connected.written.count(b"HTTP/1.1 200") == 3
    connected.close()


async def test_a_body_is_left_as_it_is() -> None:
    connected = Connected(None)
    body = b"\r\nUpgrade: h2c\r\n\r\n"
    head = HEAD.replace(b"Length: 5", b"Length: %d" % (2 * len(body)))
    for part in (head + body, body):
        connected.protocol.data_received(part)
    await connected.settle()
    assert connected.heard == [body + body]
    connected.close()


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9.9\r\n\r\n"])
async def test_what_is_no_http_is_told_so_as_a_problem(data: bytes) -> None:
    connected = Connected(None)
    connected.protocol.data_received(data)
    head, _, body = connected.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head
    assert "no well-formed HTTP/1.1" in orjson.loads(body)["detail"]
    assert connected.transport.close.called
    connected.close()


async def test_who_never_speaks_is_sent_away() -> None:
    connected = Connected(None)
    connected.protocol._give_up()
    assert connected.transport.close.called
    connected.close()


async def test_who_was_refused_just_now_may_stay() -> None:
    connected = Connected(lambda data: (b"REFUSED", len(data)))
    connected.protocol.data_received(HEAD)
    connected.protocol._give_up()
    connected.protocol.timeout_keep_alive_handler()
    assert not connected.transport.close.called
    assert HEAD_TIMEOUT_S > 0
    connected.protocol._unset_keepalive_if_required()
    connected.close()


@pytest.mark.parametrize("rest", [(b"\r\n", b""), (b"\r\n", b"GET / H"), (b"", b"1"), (b"", b"123456789\r\n")])
async def test_who_falls_silent_after_an_answer_is_sent_away(
    rest: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)

    async def app(scope: Any, receive: Any, send: Any) -> None:  # reads no body
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(app, lifespan="off", **protocol.options())
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: GuardedHttpProtocol(config, state, {}), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        length = b"" if rest[0] else b"Content-Length: 9\r\n"
        for _ in range(2 if rest[0] else 1):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n")
            await reader.readuntil(b"\r\n\r\nok")
            await asyncio.sleep(0.01)
        for part in rest:
            writer.write(part)
            await asyncio.sleep(0.01)
        assert await asyncio.wait_for(reader.read(), 3) == b""
        writer.close()
    assert not state.connections


async def test_an_answered_upload_may_take_its_time() -> None:
    connected = Connected(None)
    connected.protocol.data_received(HEAD.replace(b"Length: 5", b"Length: 9"))
    connected.protocol.cycle.response_complete = True
    timers = []
    for _ in range(3):
        connected.protocol.data_received(b"1")
        timers.append(connected.protocol._patience)
    assert [timer is not None and timer.cancelled() for timer in timers] == [True, True, False]
    connected.close()


async def test_refusals_one_upon_the_other_are_seen_to_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    monkeypatch.setattr("service.server.flood.time.sleep", rests.append)
    now, loop, flood = [0.0], Mock(), Flood()
    loop.time.side_effect = lambda: now[0]
    flood.refused(loop)  # one alone
    now[0] = 1.0
    flood.refused(loop)
    assert not loop.call_soon.called
    flood.refused(loop)
    flood.refused(loop)
    loop.call_soon.assert_called_once()
    loop.call_soon.call_args.args[0]()
    assert rests == [REST_S]
    flood.refused(loop)
    assert loop.call_soon.call_count == 2


async def test_a_head_without_end() -> None:
    connected = Connected(None)
    connected.protocol.data_received(b"GET / HTTP/1.1\r\nX: ")
    for _ in range(9):
        connected.protocol.data_received(b"a" * 8000)
    assert b"HTTP/1.1 400" in connected.written
    connected.close()


async def test_who_takes_no_answers_gets_none_for_less_than_their_price() -> None:
    asked: list[bytes] = []

    def reject(data: bytes) -> tuple[bytes, int]:
        asked.append(data)
        return b"REFUSED", len(data)

    connected = Connected(reject)
    connected.protocol.data_received(HEAD + b"12345")
    connected.protocol.pause_writing()
    connected.protocol.data_received(HEAD + b"12345")
    assert (len(asked), connected.written) == (1, b"REFUSED")
    connected.close()
