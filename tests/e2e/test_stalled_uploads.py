"""Uploads that stall keep nobody out: a real server, real sockets, as many of them as there are places and more."""

import json
import socket
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, suppress

import httpx
import pytest

from benchmarks.harness import SCENE
from service.admission.stalled_uploads import MAX_PAUSE_S
from tests.support.background import meanwhile
from tests.support.server_process import Process, running, stand_in

PLACES = 64  # as shipped
CHUNKED_PLACES = 8  # of bodies without Content-Length: each may be the largest
LENGTH = b"Content-Length: 500000\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BODY = SCENE.read_bytes()


@pytest.fixture(scope="module")
def server() -> Generator[Process, None, None]:
    with running(stand_in(1)) as process:
        yield process
        assert process.stop() == 0
    assert not [line for line in process.log if "Traceback" in line]


def begin(port: int, framing: bytes, body: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n" + framing + b"\r\n" + body)
    return connection


def stalled(stack: ExitStack, process: Process, count: int, framing: bytes, body: bytes = b"") -> list[socket.socket]:
    """So many uploads, each in a place, and all of them past their time of grace."""
    connections = [stack.enter_context(begin(process.port, framing, body)) for _ in range(count)]
    time.sleep(MAX_PAUSE_S + 0.2)
    return connections


def answer_on(connection: socket.socket) -> tuple[bytes, dict[str, object]]:
    """Head and problem of what comes until the server closes."""
    received = b""
    while part := connection.recv(65536):
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return head, json.loads(body)


def still_open(connections: list[socket.socket]) -> list[socket.socket]:
    for connection in connections:
        connection.setblocking(False)
    waiting = []
    for connection in connections:
        try:
            connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            waiting.append(connection)
    return waiting


def trickling(connections: list[socket.socket], part: bytes) -> AbstractContextManager[None]:
    """While inside, each of them sends this part ten times a second."""

    def trickle() -> None:
        for connection in connections:
            with suppress(OSError):  # it was sent away
                connection.send(part)

    return meanwhile(trickle, 0.1)


def ask(process: Process) -> int:
    return httpx.post(f"{process.url}/segment", content=BODY, timeout=30).status_code


@pytest.mark.parametrize(
    ("count", "framing", "body"),
    [(PLACES, LENGTH, b"x" * 50_000), (CHUNKED_PLACES, CHUNKED, b"3\r\nabc\r\n")],
    ids=["announced", "chunked"],
)
def test_a_house_full_of_stalled_uploads_lets_everybody_in(
    server: Process, count: int, framing: bytes, body: bytes
) -> None:
    with ExitStack() as stack:
        connections = stalled(stack, server, count, framing, body)
        connections += stalled(stack, server, count, framing, body)  # these take the places of those
        assert len(still_open(connections)) == count
        assert [ask(server) for _ in range(5)] == [200] * 5
        assert len(still_open(connections)) == count - 1  # one place was enough for five, one after the other


@pytest.mark.parametrize(
    ("count", "framing", "part"), [(PLACES, LENGTH, b"x"), (CHUNKED_PLACES, CHUNKED, b"1;aaaaaaaaaa\r\nx\r\n")]
)
def test_a_byte_now_and_then_does_not_help(server: Process, count: int, framing: bytes, part: bytes) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(begin(server.port, framing, b"")) for _ in range(count)]
        with trickling(connections, part):
            time.sleep(MAX_PAUSE_S + 0.5)
            assert ask(server) == 200
        assert len(still_open(connections)) == count - 1


def test_who_has_to_go_is_told_why(server: Process) -> None:
    with ExitStack() as stack:
        (first, *_) = stalled(stack, server, PLACES, LENGTH, b"x" * 1000)
        assert ask(server) == 200
        head, problem = answer_on(first)
        metrics = httpx.get(f"{server.url}/metrics").text
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"\r\nconnection: close" in head
    assert b"\r\ncontent-type: application/problem+json" in head
    assert (problem["type"], problem["status"]) == ("urn:alignseg:problem:upload-too-slow", 408)
    for text in ("1000 of 500000 bytes", "its slot was reassigned", "Minimum rate: 8 kB/s", "smaller image"):
        assert text in str(problem["detail"])
    assert 'alignseg_requests_rejected_total{reason="upload-too-slow"}' in metrics


def test_nobody_without_a_key_takes_a_place_back() -> None:
    key = b"X-API-Key: secret\r\n"
    with running(stand_in(1), max_in_flight=2, api_keys="secret") as process, ExitStack() as stack:
        connections = stalled(stack, process, 2, key + LENGTH)
        assert ask(process) == 401
        assert len(still_open(connections)) == 2


def test_an_upload_that_goes_on_is_left_in_peace() -> None:
    body, statuses = BODY + bytes(80_000), []
    with running(stand_in(1), max_in_flight=1) as process, ExitStack() as stack:
        connection = stack.enter_context(begin(process.port, b"Content-Length: %d\r\n" % len(body), b""))
        for i, start in enumerate(range(0, len(body), 2000)):
            connection.sendall(body[start : start + 2000])
            time.sleep(0.03)  # more than 8 kB a second on any machine, for longer than the time of grace
            if i % 10 == 9:
                statuses.append(ask(process))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert set(statuses) == {429}


def test_once_it_is_in_it_is_no_upload_any_more() -> None:
    """However long the engine takes."""
    with running(stand_in(1000 * MAX_PAUSE_S + 1000, warm_ms=1), max_in_flight=1) as process, ExitStack() as stack:
        busy = stack.enter_context(begin(process.port, b"Content-Length: %d\r\n" % len(BODY), BODY))
        time.sleep(MAX_PAUSE_S + 0.2)
        assert ask(process) == 429
        assert busy.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_the_end_does_not_wait_for_it() -> None:
    with running(stand_in(1), drain_timeout_s=300, request_timeout_ms=300_000) as process, ExitStack() as stack:
        (connection,) = stalled(stack, process, 1, LENGTH)
        assert process.stop() == 0  # within the 30 s of Process.wait
        head, problem = answer_on(connection)
    assert head.startswith(b"HTTP/1.1 408 ")
    assert "the server is shutting down" in str(problem["detail"])
    assert [line for line in process.log if "draining: requests in flight: 1" in line]
    assert [line for line in process.log if "drained in" in line]


def test_while_nobody_else_comes_it_may_take_its_time(server: Process) -> None:
    with begin(server.port, b"Content-Length: %d\r\n" % len(BODY), BODY[:10]) as connection:
        time.sleep(MAX_PAUSE_S + 0.5)
        assert ask(server) == 200  # there is room for both
        connection.sendall(BODY[10:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_its_deadline_stays(server: Process) -> None:
    with begin(server.port, LENGTH + b"X-Request-Timeout-Ms: 300\r\n", b"x" * 10) as connection:
        head, problem = answer_on(connection)
    assert head.startswith(b"HTTP/1.1 408 ")
    assert "10 of 500000 bytes of the body came in 0.3 s" in str(problem["detail"])
