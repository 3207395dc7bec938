"""ALIGNSEG_KEEP_ALIVE_S and ALIGNSEG_CORS_ORIGINS on the real server."""

import json
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import tiny_model
from tests.support.fake_engine import encoded, striped
from tests.support.server_process import running, serve, stand_in

HEAD = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def seconds_until_closed(port: int, at_most: float) -> float:
    """From a response until the server closes the idle connection; at_most if it does not."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(HEAD)
        assert b"200 OK" in connection.recv(65536)
        began = time.monotonic()
        connection.settimeout(at_most)
        try:
            while connection.recv(65536):
                pass
        except TimeoutError:
            return at_most
        return time.monotonic() - began


@pytest.mark.parametrize("admin", [False, True])
def test_an_idle_connection_stays_open_as_long_as_set(admin: bool) -> None:
    settings = {"admin_port": 0} if admin else {}
    with running(stand_in(1), keep_alive_s=1.5, **settings) as server:
        for url in server.urls[1:] if admin else server.urls:
            assert 1.2 < seconds_until_closed(int(url.rsplit(":", 1)[1]), 5) < 4
    with running(stand_in(1), keep_alive_s=600, **settings) as server:
        for url in server.urls[1:] if admin else server.urls:
            assert seconds_until_closed(int(url.rsplit(":", 1)[1]), 4) == 4


def test_sixteen_chunked_uploads_at_once_are_accepted_by_an_idle_server(tmp_path: Path) -> None:
    tiny_model.write(tmp_path / "tiny")
    (tmp_path / "a.png").write_bytes(encoded(striped()))
    with running(serve(tmp_path / "tiny")) as server:
        curl = ["curl", "-sS", "-o", "/dev/null", "-w", "%{json}\n", "-T", str(tmp_path / "a.png"), "-X", "POST"]
        headers = ["-H", "Transfer-Encoding: chunked", "-H", "Expect:"]
        processes = [
            subprocess.Popen([*curl, *headers, f"{server.url}/segment"], stdout=subprocess.PIPE)  # noqa: S603
            for _ in range(16)
        ]
        statuses = [json.loads(process.communicate(timeout=60)[0])["http_code"] for process in processes]
    assert statuses == [200] * 16
