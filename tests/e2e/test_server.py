"""The real server: `alignseg serve` in a process of its own, a real ONNX model, real HTTP."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support import tiny_model
from tests.support.fake_engine import encoded, opened

REPOSITORY = Path(__file__).resolve().parents[2]


class Process:
    """`alignseg serve` on a port that the system chose."""

    def __init__(self, model: Path, **settings: object) -> None:
        environment = {**os.environ, **{f"ALIGNSEG_{k.upper()}": str(v) for k, v in settings.items()}}
        command = [sys.executable, "-m", "alignseg_serve", "serve", "--model", str(model), "--port", "0"]
        self.process = subprocess.Popen(  # noqa: S603
            command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True
        )
        self.log: list[str] = []
        self._running = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._running.wait(30), "".join(self.log)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if match := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
                self.url = match[1]
                self._running.set()
        self._running.set()

    def stop(self, sig: int = signal.SIGTERM) -> int:
        self.process.send_signal(sig)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(30)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@contextmanager
def serving(model: Path, **settings: object) -> Generator[Process, None, None]:
    process = Process(model, **settings)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
            process.wait()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model.write(folder)
    return folder


@pytest.fixture(scope="module")
def server(model: Path) -> Generator[Process, None, None]:
    with serving(model, max_body_bytes=2_000_000) as process:
        yield process
        assert process.stop() == 0, "".join(process.log)


def colours(height: int = 96, width: int = 128) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Red to the left, green to the right, blue below."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 1] = 255
    pixels[height // 2 :] = 0, 0, 255
    return pixels


def test_a_picture_in_a_mask_out(server: Process) -> None:
    pixels = colours()
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        data = encoded(pixels, kind)
        mask = httpx.post(f"{server.url}/segment", files={"image": data}, headers={"Accept": "image/png"})
        assert mask.status_code == 200, mask.text
        np.testing.assert_array_equal(np.asarray(opened(mask.content)), pixels.argmax(axis=2), err_msg=kind)
    body = httpx.post(f"{server.url}/segment", content=encoded(pixels)).json()
    assert {c["name"]: c["fraction"] for c in body["classes"]} == {"red": 0.25, "green": 0.25, "blue": 0.5}


@pytest.mark.parametrize("http", ["--http1.0", "--http1.1", "--http2"])
def test_curl(server: Process, http: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(encoded(colours()))
    command = ["curl", "-sS", http, "-F", f"image=@{tmp_path}/photo.png", f"{server.url}/segment"]
    assert b'"name":"red"' in subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603


def test_health(server: Process) -> None:
    for path in ("/healthz/live", "/healthz/ready", "/health", "/classes", "/docs"):
        assert httpx.get(server.url + path).status_code == 200


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_without_end_is_refused_in_the_middle(server: Process, announced: bool) -> None:
    chunks, sent = 400, []

    def body() -> Generator[bytes, None, None]:
        for i in range(chunks):
            sent.append(i)
            yield bytes(500_000)

    headers = {"Content-Length": str(chunks * 500_000)} if announced else {}
    response = httpx.post(f"{server.url}/segment", content=body(), headers=headers, timeout=30)
    assert response.status_code == 413
    assert response.json()["type"] == "urn:alignseg:problem:payload-too-large"
    assert len(sent) < chunks


def test_clients_that_hang_up_cost_nothing(server: Process) -> None:
    data = encoded(np.tile(colours(), (6, 6, 1)))
    head = f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(data)}\r\n\r\n"
    port = int(server.url.rsplit(":", 1)[1])
    rng = np.random.default_rng(5)
    for _ in range(200):  # three times as many as there are places
        with socket.create_connection(("127.0.0.1", port)) as connection:
            whole = head.encode() + data
            connection.sendall(whole if rng.random() < 0.5 else whole[: int(rng.integers(len(whole)))])
            time.sleep(float(rng.choice([0, 0.005])))
    deadline = time.monotonic() + 20
    while (answer := httpx.post(f"{server.url}/segment", content=data)).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)
    assert "Traceback" not in "".join(server.log)


async def test_sigterm_in_full_flight_answers_all_that_was_accepted(model: Path) -> None:
    data = encoded(np.tile(colours(), (20, 20, 1)))  # 1920x2560: enough work to be caught in
    with serving(model, codec_threads=1) as process:
        async with httpx.AsyncClient(base_url=process.url, timeout=60) as client:
            flying = [asyncio.create_task(client.post("/segment", content=data)) for _ in range(12)]
            await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
            process.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.05)
            late = await client.post("/segment", content=data)
            ready = await client.get("/healthz/ready")
            answers = await asyncio.gather(*flying)
        code = await asyncio.to_thread(process.wait)
    assert [a.status_code for a in answers] == [200] * len(answers)
    assert (late.status_code, ready.status_code) == (503, 503)
    assert code == 0, "".join(process.log)
    assert "Traceback" not in "".join(process.log)


def test_ctrl_c_exits_with_0(model: Path) -> None:
    with serving(model) as process:
        assert process.stop(signal.SIGINT) == 0


def test_a_model_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "alignseg_serve", "serve", "--model", str(tmp_path / "none"), "--port", "0"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


WHAT_SERVING_IMPORTS = """
import sys
from service import manifest
from service.app import create_app
from service.engines.selection import open_engine
from service.settings import Settings

settings = Settings(model=sys.argv[1])
open_engine(settings, manifest.load(settings.model))
create_app(settings)
print({"torch", "onnx", "model_export", "training"} & set(sys.modules))
"""


def test_serving_imports_neither_torch_nor_onnx(model: Path) -> None:
    command = [sys.executable, "-c", WHAT_SERVING_IMPORTS, str(model)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "set()"
