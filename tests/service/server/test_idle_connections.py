"""Connections that say nothing do not shut the house."""

import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, closing
from unittest.mock import Mock

import httpx
import pytest

from benchmarks.harness import ServerProcess, fake_engine_server
from service.server import open_file_limit
from service.server.idle_connections import Idle

MOST, OPEN_FILES = 44, 300  # so many connections are left of so many files
HALF_A_HEAD = b"POST /segment HTTP/1.1\r\nHost: here\r\n"


def test_who_has_waited_longest_makes_room() -> None:
    idle, one, two, three = Idle(), Mock(), Mock(), Mock()
    for each in (one, two, three):
        idle.waits(each)
    idle.works(one)
    idle.waits(two)  # again: had an answer
    assert idle.make_room() and three.abort.called and not two.abort.called
    assert idle.make_room() and two.abort.called
    assert not idle.make_room() and not one.abort.called


def test_who_has_ended_is_forgotten() -> None:
    idle, one = Idle(), Mock()
    idle.waits(one)
    idle.works(one)
    idle.works(one)
    assert not idle.make_room()


@pytest.fixture(scope="module")
def port() -> Generator[int, None, None]:
    """A real server that may open few files."""
    bounded = ["sh", "-c", f'ulimit -n {OPEN_FILES}; exec "$@"', "sh", *fake_engine_server(1.0)]
    server = ServerProcess(bounded, ALIGNSEG_LOG="json")
    try:
        yield server.port
        server.process.terminate()
        assert server.process.wait(30) == 0, server.log[-5:]
    finally:
        server.close()


def has_ended(connection: socket.socket) -> bool:
    connection.settimeout(10)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("said", [b"", HALF_A_HEAD])
def test_a_newcomer_is_answered_while_hundreds_say_nothing(port: int, said: bytes) -> None:
    with ExitStack() as opened:
        silent = [opened.enter_context(closing(socket.create_connection(("127.0.0.1", port)))) for _ in range(5 * MOST)]
        for each in silent:
            try:
                each.sendall(said)
            except OSError:
                assert each is not silent[-1]  # it has made room by now
        for _ in range(3):
            assert httpx.get(f"http://127.0.0.1:{port}/classes").status_code == 200
        assert has_ended(silent[0])
        silent[-1].setblocking(False)
        with pytest.raises(BlockingIOError):  # still waits
            silent[-1].recv(1)


def test_who_has_just_been_answered_keeps_the_connection(port: int) -> None:
    url = f"http://127.0.0.1:{port}/classes"
    with httpx.Client() as client, ExitStack() as opened:
        assert client.get(url).status_code == 200
        kept = client._transport._pool.connections[0]  # type: ignore[attr-defined]
        for _ in range(3 * MOST):
            opened.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
            assert client.get(url).status_code == 200
        assert client._transport._pool.connections == [kept]  # type: ignore[attr-defined]


def test_as_many_files_are_asked_for_as_the_system_gives() -> None:
    program = (
        "import resource; from service import descriptors\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "print(descriptors.allow(4096), resource.getrlimit(resource.RLIMIT_NOFILE))"
    )

    def told(soft: int, hard: int) -> str:
        code = program.format(soft=soft, hard=hard)
        command = [sys.executable, "-c", code]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603

    files = 4096 + open_file_limit.OTHERS
    assert told(1024, 10_000) == f"4096 ({files}, 10000)"
    assert told(9000, 10_000) == "4096 (9000, 10000)"
    assert told(512, 1024) == f"{1024 - open_file_limit.OTHERS} (1024, 1024)"
    assert told(64, 64) == "1 (64, 64)"
