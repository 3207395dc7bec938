"""SlowReaders and IdleConnections: by themselves, and over real connections."""

import asyncio
import socket
from collections.abc import Generator
from contextlib import ExitStack, closing
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

from benchmarks.harness import ServerProcess, fake_engine_server
from service.server import connections, protocol
from service.server.connections import CHECK_INTERVAL_S, STALL_TIMEOUT_S, IdleConnections, SlowReaders

LARGE = 30_000_000  # more than any socket buffers


class Loop:
    """The clock of an event loop, and its latest call_later."""

    now = 100.0

    def __init__(self) -> None:
        self.later: Any = None

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, call: Any, *args: Any) -> Mock:
        self.later = lambda: call(*args)
        return Mock()

    def passes(self, seconds: float) -> None:
        """Advance the clock, with a check every CHECK_INTERVAL_S."""
        for _ in range(round(seconds / CHECK_INTERVAL_S)):
            self.now += CHECK_INTERVAL_S
            if (later := self.later) is not None:
                self.later = None
                later()


def transport_with(size: int) -> Mock:
    transport = Mock()
    transport.get_write_buffer_size.return_value = size
    return transport


def reads(transport: Mock, size: int) -> None:
    transport.get_write_buffer_size.return_value -= size


@pytest.fixture
def loop() -> Any:
    return Loop()


def test_a_client_that_reads_nothing_is_disconnected(loop: Any) -> None:
    on_abort = Mock()
    one, sent = transport_with(LARGE), transport_with(0)
    readers = SlowReaders(on_abort)
    readers.watch(one, loop)
    readers.watch(sent, loop)
    loop.passes(STALL_TIMEOUT_S - 1)
    assert not one.abort.called
    loop.passes(2 * CHECK_INTERVAL_S)
    assert one.abort.called
    assert not sent.abort.called
    on_abort.assert_called_once()
    loop.passes(2 * CHECK_INTERVAL_S)
    assert loop.later is None  # nothing is left to watch


@pytest.mark.parametrize(("each_s", "stays"), [(100, False), (7000, False), (9000, True)])
def test_a_slow_reader_stays_above_the_minimum_rate(loop: Any, each_s: int, stays: bool) -> None:
    one = transport_with(LARGE)
    SlowReaders().watch(one, loop)
    for _ in range(200):
        reads(one, each_s)
        loop.passes(CHECK_INTERVAL_S)
    assert one.abort.called != stays


def test_a_short_pause_is_allowed(loop: Any) -> None:
    one = transport_with(LARGE)
    SlowReaders().watch(one, loop)
    for _ in range(5):
        loop.passes(STALL_TIMEOUT_S - 2)
        reads(one, 1_000_000)
        loop.passes(CHECK_INTERVAL_S)
    assert not one.abort.called


def test_above_the_total_the_slowest_reader_is_disconnected(loop: Any) -> None:
    quick, slow, late = transport_with(80), transport_with(80), transport_with(80)
    readers = SlowReaders(max_bytes=200)
    readers.watch(slow, loop)
    readers.watch(quick, loop)
    loop.passes(5)
    reads(quick, 10)
    readers.watch(late, loop)
    assert slow.abort.called
    assert not quick.abort.called
    assert not late.abort.called


def test_a_single_response_always_fits(loop: Any) -> None:
    one = transport_with(1000)
    SlowReaders(max_bytes=200).watch(one, loop)
    assert not one.abort.called


async def test_a_real_client_that_does_not_read_is_disconnected_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_TIMEOUT_S", 0.3)
    monkeypatch.setattr(connections, "CHECK_INTERVAL_S", 0.05)
    counted: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % LARGE)]})
        await send({"type": "http.response.body", "body": bytes(LARGE)})

    config = uvicorn.Config(app, lifespan="off", **protocol.uvicorn_options(on_connection_error=counted.append))
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: config.http_protocol_class(config, state, {}), "127.0.0.1", 0
    )
    async with server:
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while not counted:  # noqa: ASYNC110 - the other side of a socket has no event
            await asyncio.sleep(0.05)
        assert len(await _all(reader)) < LARGE
        writer.close()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert len(await _all(reader)) > LARGE
        writer.close()
    assert counted == ["response-not-read"]


async def _all(reader: asyncio.StreamReader) -> bytes:
    received = b""
    try:
        while part := await reader.read(1 << 20):
            received += part
    except ConnectionResetError:
        pass
    return received


MAX_CONNECTIONS, OPEN_FILES = 44, 300  # of 300 open files, 44 are left for connections
HALF_A_HEAD = b"POST /segment HTTP/1.1\r\nHost: x\r\n"


def test_the_longest_idle_connection_is_aborted_first() -> None:
    idle, one, two, three = IdleConnections(), Mock(), Mock(), Mock()
    for each in (one, two, three):
        idle.add(each)
    idle.discard(one)
    idle.add(two)  # again: its request was answered
    assert idle.abort_oldest() and three.abort.called and not two.abort.called
    assert idle.abort_oldest() and two.abort.called
    assert not idle.abort_oldest() and not one.abort.called


def test_a_closed_connection_is_forgotten() -> None:
    idle, one = IdleConnections(), Mock()
    idle.add(one)
    idle.discard(one)
    idle.discard(one)
    assert not idle.abort_oldest()


@pytest.fixture(scope="module")
def port() -> Generator[int, None, None]:
    """A real server that may open few files."""
    bounded = ["sh", "-c", f'ulimit -n {OPEN_FILES}; exec "$@"', "sh", *fake_engine_server(1.0)]
    server = ServerProcess(bounded, ALIGNSEG_LOG="json")
    try:
        yield server.port
        server.process.terminate()
        assert server.process.wait(120) == 0, server.log[-5:]
    finally:
        server.close()


def has_ended(connection: socket.socket) -> bool:
    connection.settimeout(10)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("sent_bytes", [b"", HALF_A_HEAD])
def test_a_new_client_is_served_while_hundreds_send_nothing(port: int, sent_bytes: bytes) -> None:
    with ExitStack() as opened:
        silent = [
            opened.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
            for _ in range(5 * MAX_CONNECTIONS)
        ]
        for each in silent:
            try:
                each.sendall(sent_bytes)
            except OSError:
                assert each is not silent[-1]  # aborted by now
        for _ in range(3):
            assert httpx.get(f"http://127.0.0.1:{port}/classes").status_code == 200
        assert has_ended(silent[0])
        silent[-1].setblocking(False)
        with pytest.raises(BlockingIOError):  # still open
            silent[-1].recv(1)


def test_a_connection_in_use_is_not_closed_for_new_ones(port: int) -> None:
    url = f"http://127.0.0.1:{port}/classes"
    with httpx.Client() as client, ExitStack() as opened:
        assert client.get(url).status_code == 200
        kept = client._transport._pool.connections[0]  # type: ignore[attr-defined]
        for _ in range(3 * MAX_CONNECTIONS):
            opened.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
            assert client.get(url).status_code == 200
        assert client._transport._pool.connections == [kept]  # type: ignore[attr-defined]
