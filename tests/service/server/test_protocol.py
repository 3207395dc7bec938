"""GuardedHttpProtocol on a mocked transport: rejected bodies, upgrades, timeouts."""

import asyncio
from typing import Any
from unittest.mock import Mock

import orjson
import pytest
import uvicorn
from uvicorn.server import ServerState

from service.server import protocol
from service.server.protocol import GuardedHttpProtocol

HEAD = b"POST /segment?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nX-Request-Id: abc-1\r\n\r\n"


class Connected:
    """A protocol on a transport that keeps what is written."""

    def __init__(self, reject: Any) -> None:
        config = Mock(loaded=True, root_path="", limit_concurrency=None, timeout_keep_alive=5, ws_protocol_class=None)
        config.reset_contextvars = False
        self.bodies: list[bytes] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            self.bodies.append(body)
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


async def test_a_rejected_body_is_discarded_and_the_connection_kept() -> None:
    reject_next = [True, True, False]
    connected = Connected(lambda data, peer: (b"REJECTED", len(HEAD) + 5) if reject_next.pop(0) else None)
    for part in (HEAD, b"12", b"345", HEAD + b"12345", HEAD + b"abcde"):
        connected.protocol.data_received(part)
    await connected.settle()
    assert connected.written.startswith(b"REJECTEDREJECTEDHTTP/1.1 200")
    assert connected.bodies == [b"abcde"]
    connected.close()


async def test_a_rejected_body_may_end_in_the_packet_of_the_next_message() -> None:
    reject_next = [True, False]
    connected = Connected(lambda data, peer: (b"REJECTED", len(HEAD) + 5) if reject_next.pop(0) else None)
    connected.protocol.data_received(HEAD + b"123")
    connected.protocol.data_received(b"45" + HEAD + b"abcde")
    await connected.settle()
    assert connected.bodies == [b"abcde"]
    connected.close()


async def test_a_body_is_not_mistaken_for_a_message() -> None:
    first_bytes: list[bytes] = []
    connected = Connected(lambda data, peer: first_bytes.append(data))
    connected.protocol.data_received(HEAD.replace(b"Length: 5", b"Length: %d" % len(HEAD)))
    connected.protocol.data_received(HEAD)  # this is the body
    await connected.settle()
    assert connected.bodies == [HEAD]
    assert len(first_bytes) == 1
    connected.close()


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n"


async def test_an_upgrade_offer_is_ignored() -> None:
    connected = Connected(None)
    offering = HEAD.replace(b"Host: x\r\n", b"Host: x\r\n" + UPGRADE)
    for part in (offering + b"12345", offering, b"abcde", HEAD + b"\r\nupgrade"[:5]):
        connected.protocol.data_received(part)
        await connected.settle()
    assert connected.bodies == [b"12345", b"abcde", b"\r\nupg"]
    assert connected.written.count(b"HTTP/1.1 200") == 3
    connected.close()


async def test_an_upgrade_line_in_a_body_is_unchanged() -> None:
    connected = Connected(None)
    body = b"\r\nUpgrade: h2c\r\n\r\n"
    head = HEAD.replace(b"Length: 5", b"Length: %d" % (2 * len(body)))
    for part in (head + body, body):
        connected.protocol.data_received(part)
    await connected.settle()
    assert connected.bodies == [body + body]
    connected.close()


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9.9\r\n\r\n"])
async def test_malformed_http_is_a_400_problem(data: bytes) -> None:
    connected = Connected(None)
    connected.protocol.data_received(data)
    head, _, body = connected.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head
    assert "not valid HTTP/1.1" in orjson.loads(body)["detail"]
    assert connected.transport.close.called
    connected.close()


async def test_a_connection_without_a_head_is_closed_at_the_timeout() -> None:
    connected = Connected(None)
    connected.protocol._on_head_timeout()
    assert connected.transport.close.called
    connected.close()


async def test_a_connection_with_a_recent_rejection_stays_open() -> None:
    connected = Connected(lambda data, peer: (b"REJECTED", len(data)))
    connected.protocol.data_received(HEAD)
    connected.protocol._on_head_timeout()
    connected.protocol.timeout_keep_alive_handler()
    assert not connected.transport.close.called
    assert connected.protocol._head_timer is not None  # both timers run again
    assert connected.protocol.timeout_keep_alive_task is not None
    connected.protocol._unset_keepalive_if_required()
    connected.close()


@pytest.mark.parametrize("rest", [(b"\r\n", b""), (b"\r\n", b"GET / H"), (b"", b"1"), (b"", b"123456789\r\n")])
async def test_a_client_that_falls_silent_after_a_response_is_disconnected(
    rest: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)

    async def app(scope: Any, receive: Any, send: Any) -> None:  # reads no body
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(app, lifespan="off", **protocol.uvicorn_options())
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


async def test_the_upload_of_an_answered_request_restarts_the_timer() -> None:
    connected = Connected(None)
    connected.protocol.data_received(HEAD.replace(b"Length: 5", b"Length: 9"))
    connected.protocol.cycle.response_complete = True
    timers = []
    for _ in range(3):
        connected.protocol.data_received(b"1")
        timers.append(connected.protocol._head_timer)
    assert [timer is not None and timer.cancelled() for timer in timers] == [True, True, False]
    connected.close()


async def test_an_endless_head_is_a_400() -> None:
    connected = Connected(None)
    connected.protocol.data_received(b"GET / HTTP/1.1\r\nX: ")
    for _ in range(9):
        connected.protocol.data_received(b"a" * 8000)
    assert b"HTTP/1.1 400" in connected.written
    connected.close()


async def test_a_client_that_does_not_read_gets_no_early_rejections() -> None:
    first_bytes: list[bytes] = []

    def reject(data: bytes, peer: object) -> tuple[bytes, int]:
        first_bytes.append(data)
        return b"REJECTED", len(data)

    connected = Connected(reject)
    connected.protocol.data_received(HEAD + b"12345")
    connected.protocol.pause_writing()
    connected.protocol.data_received(HEAD + b"12345")
    assert (len(first_bytes), connected.written) == (1, b"REJECTED")
    connected.close()
