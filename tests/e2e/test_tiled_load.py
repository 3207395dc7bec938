"""Tiled images beside ordinary ones, on a real server with a fake engine."""

import re
import threading
import time
from collections import Counter
from collections.abc import Generator

import httpx
import numpy as np
import orjson
import pytest

from tests.support.fake_engine import encoded
from tests.support.server_process import Process, running, stand_in

INFER_MS = 30
TILES = 99
SMALL = encoded(np.zeros((90, 120, 3), dtype=np.uint8))
LARGE = encoded(np.zeros((2280, 3680, 3), dtype=np.uint8))  # 9 x 11 tiles of 360 x 480


@pytest.fixture
def server() -> Generator[Process, None, None]:
    with running(stand_in(INFER_MS), max_in_flight=24) as process:
        yield process
        assert process.stop() == 0


def post_all(process: Process, count: int, query: str = "", data: bytes = SMALL, **headers: str) -> Counter[int]:
    """Send requests at once. Returns how many got which status."""
    statuses: list[int] = []

    def post() -> None:
        url = f"{process.url}/segment?masks=none{query}"
        statuses.append(httpx.post(url, content=data, headers=headers, timeout=120).status_code)

    threads = [threading.Thread(target=post) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(statuses)


def gauge(process: Process, name: str) -> float:
    (value,) = re.findall(rf"^alignseg_{name} (\S+)$", httpx.get(f"{process.url}/metrics").text, re.MULTILINE)
    return float(value)


def wait_for_tiles(process: Process, at_least: int) -> None:
    until = time.monotonic() + 300
    while gauge(process, "active_tensors") < at_least:
        assert time.monotonic() < until
        time.sleep(0.01)


def start(process: Process, data: bytes = LARGE) -> threading.Thread:
    thread = threading.Thread(target=post_all, args=(process, 1, "&tile=true", data))
    thread.start()
    return thread


def test_after_a_tiled_image_a_burst_of_ordinary_ones_passes(server: Process) -> None:
    response = httpx.post(f"{server.url}/segment?masks=none&tile=true", content=LARGE, timeout=120)
    assert response.json()["tiles"] == TILES
    for _ in range(3):
        timeout_ms = str(20 * INFER_MS * 10)  # ten times what they take; by the image's own rate it would be too short
        assert post_all(server, 20, **{"X-Request-Timeout-Ms": timeout_ms}) == {200: 20}


def test_after_requests_of_several_images_a_burst_of_ordinary_ones_passes(server: Process) -> None:
    files = [("image", (f"{index}.png", SMALL, "image/png")) for index in range(16)]
    values = np.zeros((16, 36, 48, 3), dtype=np.uint8)
    tensor = {"name": "pictures", "datatype": "UINT8", "shape": list(values.shape), "data": values.ravel().tolist()}
    for _ in range(4):
        assert httpx.post(f"{server.url}/segment", files=files, timeout=300).status_code == 200
        body = orjson.dumps({"inputs": [tensor]})
        assert httpx.post(f"{server.url}/v2/models/fake/infer", content=body, timeout=300).status_code == 200
    timeout_ms = str(20 * INFER_MS * 8)
    assert post_all(server, 20, **{"X-Request-Timeout-Ms": timeout_ms}) == {200: 20}


def test_while_a_tiled_image_is_computed_ordinary_ones_pass(server: Process) -> None:
    post_all(server, 10)  # so that the rate is known
    tiled = start(server)
    wait_for_tiles(server, TILES // 2)
    timeout_ms = str(INFER_MS * 40)  # less than the rest of the tiles takes
    assert post_all(server, 1, **{"X-Request-Timeout-Ms": timeout_ms}) == {200: 1}
    assert gauge(server, "active_tensors") > 1  # the tiles are not done
    tiled.join()


@pytest.mark.parametrize("tiled", [1, 2])
def test_retry_after_is_right_with_mixed_traffic(tiled: int) -> None:
    with running(stand_in(INFER_MS), max_in_flight=tiled + 3) as process:
        post_all(process, 3)
        post_all(process, 3)
        work = [start(process) for _ in range(tiled)]
        wait_for_tiles(process, tiled * (TILES - 10))
        rejections: list[tuple[float, float]] = []

        def post() -> None:
            response = httpx.post(f"{process.url}/segment?masks=none", content=SMALL, timeout=300)
            if response.status_code == 429:
                rejections.append((time.monotonic(), response.json()["retry_after_s"]))

        burst = [threading.Thread(target=post) for _ in range(12)]
        for thread in burst:
            thread.start()
        for thread in burst:
            thread.join()
        began, retry_s = min(rejections)
        for thread in work:
            thread.join()
        took_s = time.monotonic() - began
        assert process.stop() == 0
    assert took_s / 2 < retry_s < took_s * 2
