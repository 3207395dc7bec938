"""Stalled uploads do not keep others out: a real server and real sockets, up to and above the admission limit."""

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

LIMIT = 64  # the default
LENGTH = b"Content-Length: 500000\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BODY = SCENE.read_bytes()


@pytest.fixture(scope="module")
def server() -> Generator[Process, None, None]:
    with running(stand_in(1)) as process:
        yield process
        assert process.stop() == 0
    assert not [line for line in process.log if "Traceback" in line]


def start_upload(port: int, framing: bytes, body: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=300)
    connection.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n" + framing + b"\r\n" + body)
    return connection


def stalled_uploads(
    stack: ExitStack, process: Process, count: int, framing: bytes, body: bytes = b""
) -> list[socket.socket]:
    """This many admitted uploads, all of them paused for longer than MAX_PAUSE_S."""
    connections = [stack.enter_context(start_upload(process.port, framing, body)) for _ in range(count)]
    process.wait_until_in_flight(count)
    time.sleep(MAX_PAUSE_S + 0.2)
    return connections


def problem_on(connection: socket.socket) -> tuple[bytes, dict[str, object]]:
    """Head and problem of the response, read until the server closes."""
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
    """While the block runs, each connection sends this part ten times a second."""

    def trickle() -> None:
        for connection in connections:
            with suppress(OSError):  # it was disconnected
                connection.send(part)

    return meanwhile(trickle, 0.1)


def post_image(process: Process) -> int:
    return httpx.post(f"{process.url}/segment", content=BODY, timeout=300).status_code


@pytest.mark.parametrize(
    ("count", "framing", "body"),
    [(LIMIT, LENGTH, b"x" * 50_000), (LIMIT, CHUNKED, b"3\r\nabc\r\n")],
    ids=["declared", "chunked"],
)
def test_stalled_uploads_do_not_keep_others_out(server: Process, count: int, framing: bytes, body: bytes) -> None:
    with ExitStack() as stack:
        connections = stalled_uploads(stack, server, count, framing, body)
        connections += stalled_uploads(stack, server, count, framing, body)  # these take the slots of the first ones
        assert len(still_open(connections)) == count
        assert [post_image(server) for _ in range(5)] == [200] * 5
        assert len(still_open(connections)) == count - 1  # one slot was enough for five requests in sequence


@pytest.mark.parametrize(
    ("count", "framing", "part"), [(LIMIT, LENGTH, b"x"), (LIMIT, CHUNKED, b"1;aaaaaaaaaa\r\nx\r\n")]
)
def test_an_upload_below_the_minimum_rate_counts_as_stalled(
    server: Process, count: int, framing: bytes, part: bytes
) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(start_upload(server.port, framing, b"")) for _ in range(count)]
        with trickling(connections, part):
            server.wait_until_in_flight(count)
            time.sleep(MAX_PAUSE_S + 0.5)
            assert post_image(server) == 200
        assert len(still_open(connections)) == count - 1


def test_a_preempted_upload_gets_a_408_with_the_reason(server: Process) -> None:
    with ExitStack() as stack:
        (first, *_) = stalled_uploads(stack, server, LIMIT, LENGTH, b"x" * 1000)
        assert post_image(server) == 200
        head, problem = problem_on(first)
        metrics = httpx.get(f"{server.url}/metrics").text
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"\r\nconnection: close" in head
    assert b"\r\ncontent-type: application/problem+json" in head
    assert (problem["type"], problem["status"]) == ("urn:alignseg:problem:upload-too-slow", 408)
    for part in (
        "1000 of 500000 bytes",
        "its slot was reassigned",
        "Minimum rate: 8 kB/s",
        "Retry with a smaller image",
    ):
        assert part in str(problem["detail"])
    assert 'alignseg_requests_rejected_total{reason="upload-too-slow"}' in metrics


def test_a_request_without_a_key_preempts_nobody() -> None:
    key = b"X-API-Key: secret\r\n"
    with running(stand_in(1), max_in_flight=2, api_keys="secret") as process, ExitStack() as stack:
        connections = stalled_uploads(stack, process, 2, key + LENGTH)
        assert post_image(process) == 401
        assert len(still_open(connections)) == 2


def test_a_progressing_upload_is_not_preempted() -> None:
    body, statuses = BODY + bytes(80_000), []
    with running(stand_in(1), max_in_flight=1) as process, ExitStack() as stack:
        connection = stack.enter_context(start_upload(process.port, b"Content-Length: %d\r\n" % len(body), b""))
        for i, start in enumerate(range(0, len(body), 2000)):
            connection.sendall(body[start : start + 2000])
            time.sleep(0.03)  # more than 8 kB a second on any machine, for longer than MAX_PAUSE_S
            if i % 10 == 9:
                statuses.append(post_image(process))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert set(statuses) == {429}


def test_a_complete_upload_is_not_preempted() -> None:
    """However long the engine takes."""
    with running(stand_in(1000 * MAX_PAUSE_S + 1000, warm_ms=1), max_in_flight=1) as process, ExitStack() as stack:
        busy = stack.enter_context(start_upload(process.port, b"Content-Length: %d\r\n" % len(BODY), BODY))
        time.sleep(MAX_PAUSE_S + 0.2)
        assert post_image(process) == 429
        assert busy.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_the_drain_does_not_wait_for_a_stalled_upload() -> None:
    with running(stand_in(1), drain_timeout_s=300, request_timeout_ms=300_000) as process, ExitStack() as stack:
        (connection,) = stalled_uploads(stack, process, 1, LENGTH)
        assert process.stop() == 0  # within the 30 s of Process.wait
        head, problem = problem_on(connection)
    assert head.startswith(b"HTTP/1.1 408 ")
    assert "the server is shutting down" in str(problem["detail"])
    assert [line for line in process.log if "draining: 1 request in flight" in line]
    assert [line for line in process.log if "drained in" in line]


def test_a_stalled_upload_may_continue_while_there_is_room(server: Process) -> None:
    with start_upload(server.port, b"Content-Length: %d\r\n" % len(BODY), BODY[:10]) as connection:
        time.sleep(MAX_PAUSE_S + 0.5)
        assert post_image(server) == 200  # there is room for both
        connection.sendall(BODY[10:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_stalled_upload_ends_at_its_deadline(server: Process) -> None:
    with start_upload(server.port, LENGTH + b"X-Request-Timeout-Ms: 300\r\n", b"x" * 10) as connection:
        head, problem = problem_on(connection)
    assert head.startswith(b"HTTP/1.1 408 ")
    assert "10 of 500000 bytes in 0.3 s" in str(problem["detail"])
