"""The real server: `alignseg serve` in a separate process, a real ONNX model, real HTTP."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support import tiny_model
from tests.support.fake_engine import encoded, opened
from tests.support.server_process import REPOSITORY, Process, running, serve


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model.write(folder)
    return folder


@pytest.fixture(scope="module")
def server(model: Path) -> Generator[Process, None, None]:
    with running(serve(model), max_body_bytes=2_000_000) as process:
        yield process
        assert process.stop() == 0, "".join(process.log)


def three_colors(height: int = 96, width: int = 128) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Red to the left, green to the right, blue below."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 1] = 255
    pixels[height // 2 :] = 0, 0, 255
    return pixels


def test_every_file_format_gives_a_mask(server: Process) -> None:
    pixels = three_colors()
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        data = encoded(pixels, kind)
        mask = httpx.post(f"{server.url}/segment", files={"image": data}, headers={"Accept": "image/png"})
        assert mask.status_code == 200, mask.text
        np.testing.assert_array_equal(np.asarray(opened(mask.content)), pixels.argmax(axis=2), err_msg=kind)
    body = httpx.post(f"{server.url}/segment", content=encoded(pixels)).json()
    assert {c["name"]: c["fraction"] for c in body["classes"]} == {"red": 0.25, "green": 0.25, "blue": 0.5}


@pytest.mark.parametrize("http", ["--http1.0", "--http1.1", "--http2"])
def test_curl_with_every_http_version(server: Process, http: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(encoded(three_colors()))
    command = ["curl", "-sS", http, "-F", f"image=@{tmp_path}/photo.png", f"{server.url}/segment"]
    assert b'"name":"red"' in subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603


def test_health_classes_and_docs_are_served(server: Process) -> None:
    for path in ("/healthz/live", "/healthz/ready", "/health", "/classes", "/docs"):
        assert httpx.get(server.url + path).status_code == 200


@pytest.mark.parametrize("declared", [True, False])
def test_an_oversized_body_is_rejected_before_its_end(server: Process, declared: bool) -> None:
    chunks, sent = 400, []

    def body() -> Generator[bytes, None, None]:
        for i in range(chunks):
            sent.append(i)
            yield bytes(500_000)

    headers = {"Content-Length": str(chunks * 500_000)} if declared else {}
    response = httpx.post(f"{server.url}/segment", content=body(), headers=headers, timeout=30)
    assert response.status_code == 413
    assert response.json()["type"] == "urn:alignseg:problem:payload-too-large"
    assert len(sent) < chunks


def test_disconnected_clients_leave_nothing_behind(server: Process) -> None:
    data = encoded(np.tile(three_colors(), (6, 6, 1)))
    head = f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(data)}\r\n\r\n"
    rng = np.random.default_rng(5)
    for _ in range(200):  # three times the admission limit
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            whole = head.encode() + data
            connection.sendall(whole if rng.random() < 0.5 else whole[: int(rng.integers(len(whole)))])
            time.sleep(float(rng.choice([0, 0.005])))
    deadline = time.monotonic() + 20
    while (response := httpx.post(f"{server.url}/segment", content=data)).status_code != 200:
        assert time.monotonic() < deadline, response.text
        time.sleep(0.05)
    assert "Traceback" not in "".join(server.log)


async def test_sigterm_answers_all_accepted_requests(model: Path) -> None:
    data = encoded(np.tile(three_colors(), (20, 20, 1)))  # 1920x2560: enough work to be caught in
    with running(serve(model), codec_threads=1) as process:
        async with httpx.AsyncClient(base_url=process.url, timeout=60) as client:
            in_flight = [asyncio.create_task(client.post("/segment", content=data)) for _ in range(12)]
            await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED)
            process.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.05)
            late = await client.post("/segment", content=data)
            ready = await client.get("/healthz/ready")
            responses = await asyncio.gather(*in_flight)
        code = await asyncio.to_thread(process.wait)
    assert [response.status_code for response in responses] == [200] * len(responses)
    assert (late.status_code, ready.status_code) == (503, 503)
    assert code == 0, "".join(process.log)
    assert "Traceback" not in "".join(process.log)


def test_ctrl_c_exits_with_0(model: Path) -> None:
    with running(serve(model)) as process:
        assert process.stop(signal.SIGINT) == 0


IMPORTS_OF_SERVING = """
import sys
from service.model_folder import manifest
from service.app import create_app
from service.engines.selection import open_engine
from service.settings import Settings

settings = Settings(model=sys.argv[1])
open_engine(settings, manifest.load(settings.model))
create_app(settings)
print({"torch", "onnx", "model_export", "training"} & set(sys.modules))
"""


def test_serving_imports_neither_torch_nor_onnx(model: Path) -> None:
    command = [sys.executable, "-c", IMPORTS_OF_SERVING, str(model)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "set()"
