"""The nginx and systemd examples of docs/operations.md, given to nginx and to systemd as they stand."""

import getpass
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest

from benchmarks.harness import free_port
from service.settings import REPOSITORY, Settings
from tests.support.server_process import Process, wait_for

TEXT = (REPOSITORY / "docs" / "operations.md").read_text()
(NGINX,) = re.findall(r"```nginx\n(.*?)```", TEXT, re.DOTALL)
(UNIT,) = re.findall(r"```ini\n(.*?)```", TEXT, re.DOTALL)
FILES = " ".join(f"{kind}_temp_path {{0}}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str, None, None]:
    """Of nginx, with the real server behind it."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    server = Process([sys.executable, "-m", "alignseg_serve", "serve", "--port", "0"])
    example = NGINX.replace("127.0.0.1:8000", server.url.removeprefix("http://"))
    example = example.replace("listen 80;", f"listen 127.0.0.1:{port};")
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"user {getpass.getuser()}; pid {folder}/pid; error_log stderr; daemon off; events {{}}\n"
        f"http {{ access_log off; {FILES.format(folder)}\n{example}}}\n"
    )
    nginx = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(configuration)])  # noqa: S603, S607
    try:
        wait_for(f"http://127.0.0.1:{port}/healthz/ready")
        yield f"http://127.0.0.1:{port}"
    finally:
        nginx.terminate()
        nginx.wait(120)
        assert server.stop() == 0


def test_an_image_passes_through_nginx(url: str) -> None:
    image = (REPOSITORY / "docs" / "scene.png").read_bytes()
    response = httpx.post(f"{url}/segment", content=image, headers={"Content-Type": "image/png"}, timeout=300)
    assert response.status_code == 200
    assert response.json()["width"] == 960
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])  # nginx's own id


def test_nginx_passes_bodies_up_to_the_servers_limit(url: str) -> None:
    below, above = (b"no image" * (mib * 2**17) for mib in (31, 33))
    response = httpx.post(f"{url}/segment", content=below, timeout=300)
    assert response.status_code == 415  # it reached the server, which knows that this is no image
    assert response.headers["content-type"] == "application/problem+json"
    assert httpx.post(f"{url}/segment", content=above, timeout=300).status_code == 413


def test_metrics_are_not_public(url: str) -> None:
    assert httpx.get(f"{url}/metrics").status_code == 403


def test_nginx_waits_longer_than_the_server() -> None:
    (seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", NGINX)
    assert int(seconds) * 1000 > Settings().request_timeout_ms


def test_the_unit_is_valid(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    python = UNIT.replace("/opt/alignseg-serve/.venv/bin/alignseg", sys.executable)  # a program that exists
    unit = tmp_path / "alignseg-serve.service"
    unit.write_text(python)
    done = subprocess.run(  # noqa: S603
        ["systemd-analyze", "verify", "--man=no", str(unit)],  # noqa: S607
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]) == (0, [])


def test_systemd_waits_longer_than_the_drain() -> None:
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert int(seconds) > Settings().drain_timeout_s
