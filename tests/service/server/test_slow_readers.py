"""Answers that their clients do not take."""

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.server import protocol, slow_readers
from service.server.slow_readers import LOOK_S, PATIENCE_S, Unsent

LARGE = 30_000_000  # more than any socket takes by itself


class Loop:
    """Its clock, and what is to be called."""

    now = 100.0

    def __init__(self) -> None:
        self.later: Any = None

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, call: Any, *args: Any) -> Mock:
        self.later = lambda: call(*args)
        return Mock()

    def passes(self, seconds: float) -> None:
        """Time, with a look every LOOK_S."""
        for _ in range(round(seconds / LOOK_S)):
            self.now += LOOK_S
            if (later := self.later) is not None:
                self.later = None
                later()


def waiting(size: int) -> Mock:
    transport = Mock()
    transport.get_write_buffer_size.return_value = size
    return transport


def takes(transport: Mock, size: int) -> None:
    transport.get_write_buffer_size.return_value -= size


@pytest.fixture
def loop() -> Any:
    return Loop()


def test_who_takes_nothing_is_cut_off(loop: Any) -> None:
    cut = Mock()
    one, sent = waiting(LARGE), waiting(0)
    answers = Unsent(cut)
    answers.watch(one, loop)
    answers.watch(sent, loop)
    loop.passes(PATIENCE_S - 1)
    assert not one.abort.called
    loop.passes(2 * LOOK_S)
    assert one.abort.called
    assert not sent.abort.called
    cut.assert_called_once()
    loop.passes(2 * LOOK_S)
    assert loop.later is None  # nobody is left to look after


@pytest.mark.parametrize(("each_s", "stays"), [(100, False), (7000, False), (9000, True)])
def test_who_takes_it_slowly_may_if_it_is_not_too_slowly(loop: Any, each_s: int, stays: bool) -> None:
    one = waiting(LARGE)
    Unsent().watch(one, loop)
    for _ in range(200):
        takes(one, each_s)
        loop.passes(LOOK_S)
    assert one.abort.called != stays


def test_a_pause_is_forgiven(loop: Any) -> None:
    one = waiting(LARGE)
    Unsent().watch(one, loop)
    for _ in range(5):
        loop.passes(PATIENCE_S - 2)
        takes(one, 1_000_000)
        loop.passes(LOOK_S)
    assert not one.abort.called


def test_too_much_at_once_cuts_off_who_takes_it_most_slowly(loop: Any) -> None:
    quick, slow, late = waiting(80), waiting(80), waiting(80)
    answers = Unsent(most_bytes=200)
    answers.watch(slow, loop)
    answers.watch(quick, loop)
    loop.passes(5)
    takes(quick, 10)
    answers.watch(late, loop)
    assert slow.abort.called
    assert not quick.abort.called
    assert not late.abort.called


def test_one_answer_always_fits(loop: Any) -> None:
    one = waiting(1000)
    Unsent(most_bytes=200).watch(one, loop)
    assert not one.abort.called


async def test_over_a_real_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_readers, "PATIENCE_S", 0.3)
    monkeypatch.setattr(slow_readers, "LOOK_S", 0.05)
    counted: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % LARGE)]})
        await send({"type": "http.response.body", "body": bytes(LARGE)})

    config = uvicorn.Config(app, lifespan="off", **protocol.options(count=counted.append))
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
