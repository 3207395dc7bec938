"""Malformed HTTP, sent to a real server over a real socket."""

import re
import socket
from collections.abc import Generator
from contextlib import ExitStack

import httpx
import orjson
import pytest

from benchmarks.harness import SCENE
from tests.support.server_process import Process, running, stand_in

BODY = SCENE.read_bytes()
POST = b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = b"POST /segment HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET /classes HTTP/1.1\r\nHost: x\r\n\r\n"
MALFORMED_COUNT = re.compile(r'^alignseg_requests_rejected_total\{reason="malformed-http"\} (\d+)', re.MULTILINE)


@pytest.fixture(scope="module")
def server() -> Generator[Process, None, None]:
    with running(stand_in(200, warm_ms=1)) as process:
        yield process
        assert process.stop() == 0
    assert not [line for line in process.log if "Traceback" in line]


def send_and_receive(process: Process, *parts: bytes) -> bytes:
    """Send the parts and return everything the server sends until it closes."""
    with socket.create_connection(("127.0.0.1", process.port), timeout=300) as connection:
        for part in parts:
            connection.sendall(part)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def malformed_count(process: Process) -> int:
    match = MALFORMED_COUNT.search(httpx.get(f"{process.url}/metrics").text)
    return int(match[1]) if match else 0


def head_with(*lines: bytes, version: bytes = b"1.1") -> bytes:
    return b"GET /classes HTTP/" + version + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


@pytest.mark.parametrize(
    ("message", "detail"),
    [(head_with(), "0 Host headers"), (head_with(b"Host: a", b"host: a"), "2 Host headers"),
     (head_with(b"Host: a", b"Host: b", version=b"1.0"), "2 Host headers"),
     (head_with(b"Host: a/b"), "Host is 'a/b'"), (head_with(b"Host: a b"), "Host is 'a b'"),
     (POST.replace(b"Host: x\r\n", b""), "0 Host headers"),
     (b"GET / HTTP/9.9\r\n\r\n", "not valid HTTP/1.1"), (b"\x16\x03\x01\x02\x00\x01", "not valid HTTP/1.1"),
     (head_with(b"Host: x", b"Content-Length: 1", b"Content-Length: 2"), "not valid HTTP/1.1"),
     (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "not valid HTTP/1.1"),
     (CHUNKED + b"zz\r\n", "not valid HTTP/1.1"), (CHUNKED + b"3\r\nabcde\r\n", "not valid HTTP/1.1")],
)  # fmt: skip
def test_malformed_http_is_a_400_problem_and_counted(server: Process, message: bytes, detail: str) -> None:
    before = malformed_count(server)
    response = send_and_receive(server, message)
    head, _, body = response.partition(b"\r\n\r\n")
    problem = orjson.loads(body)
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"content-type: application/problem+json" in head
    assert detail in problem["detail"]
    assert malformed_count(server) == before + 1


@pytest.mark.parametrize(
    "message",
    [head_with(b"Host:", b"Connection: close"), head_with(b"Host: [::1]:8000", b"Connection: close"),
     head_with(b"HOST: a_b.example:1", b"Connection: close"), head_with(version=b"1.0"),
     head_with(b"Host: x \t ", b"Connection: close "),
     POST.replace(b"Host: x", b"Host: x\r\nConnection: close\r\nX-Request-Timeout-Ms: 5000 "),
     POST.replace(b"1.1", b"1.0").replace(b"Host: x", b"Expect: 100-continue")],
)  # fmt: skip
def test_unusual_but_valid_requests_are_served(server: Process, message: bytes) -> None:
    assert send_and_receive(server, message).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "after", [b"nonsense\r\n\r\n", head_with(), CHUNKED + b"zz\r\n", GET + head_with(), b"GET / HTTP/1.1\r\nX"]
)
@pytest.mark.parametrize("at_once", [True, False])
def test_requests_before_a_malformed_one_are_answered_first(server: Process, after: bytes, at_once: bool) -> None:
    response = send_and_receive(server, *([POST + after + b"\x00"] if at_once else [POST, after + b"\x00"]))
    statuses = re.findall(rb"HTTP/1.1 (\d+) ", response)
    assert statuses == [b"200"] * (1 + after.startswith(GET)) + [b"400"]
    assert response.count(b"connection: close") == 1


def test_requests_after_a_malformed_one_are_ignored(server: Process) -> None:
    assert re.findall(rb"HTTP/1.1 (\d+) ", send_and_receive(server, head_with() + GET, GET)) == [b"400"]


def test_a_malformed_body_after_its_response_only_closes_the_connection(server: Process) -> None:
    unsupported = CHUNKED.replace(b"Host: x", b"Host: x\r\nContent-Type: text/plain")
    with socket.create_connection(("127.0.0.1", server.port), timeout=300) as connection:
        connection.sendall(unsupported)
        response = connection.makefile("rb")
        head = b"".join(iter(response.readline, b"\r\n"))
        assert head.startswith(b"HTTP/1.1 415 ")
        orjson.loads(response.read(int(re.findall(rb"content-length: (\d+)", head)[0])))
        connection.sendall(b"zz\r\n")
        assert response.read() == b""


def test_malformed_http_is_a_400_at_capacity_too() -> None:
    with running(stand_in(1000, warm_ms=1), max_in_flight=1) as process, ExitStack() as stack:
        busy = stack.enter_context(socket.create_connection(("127.0.0.1", process.port), timeout=300))
        busy.sendall(POST)
        httpx.get(f"{process.url}/metrics")  # by now it is admitted
        assert send_and_receive(process, POST.replace(b"Host: x\r\n", b"")).startswith(b"HTTP/1.1 400 ")
        assert httpx.post(f"{process.url}/segment", content=BODY).status_code == 429
        assert busy.recv(65536).startswith(b"HTTP/1.1 200 ")
