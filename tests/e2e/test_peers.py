"""The servers in the comparison keep the same contract, and the table is made of real responses."""

import io
import sys

import httpx
import numpy as np
import pytest
from PIL import Image

from benchmarks.harness import SCENE, ServerProcess, fake_engine_server, free_port, serving
from benchmarks.server import compare_servers
from benchmarks.server.compare_servers import OURS, Plan


def mask(port: int) -> tuple[np.ndarray, list[int]]:
    response = httpx.post(
        f"http://127.0.0.1:{port}/segment", content=SCENE.read_bytes(), headers={"Accept": "image/png"}
    )
    assert response.headers["content-type"] == "image/png"
    image = Image.open(io.BytesIO(response.content))
    assert image.mode == "P"
    return np.asarray(image), image.getpalette()[:33]


def test_the_plain_server_responds_as_ours_does() -> None:
    port = free_port()
    peer = ServerProcess([sys.executable, "-m", "benchmarks.server.peers.fastapi_server", "--port", str(port)])
    try:
        with serving(fake_engine_server(0.3)) as ours:
            (theirs, their_palette), (own, own_palette) = mask(port), mask(ours.port)
    finally:
        peer.close()
    np.testing.assert_array_equal(own, theirs)
    assert own_palette == their_palette


def test_a_small_table_has_a_row_for_each_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_servers, "CLIENTS", (2,))
    monkeypatch.setattr(compare_servers, "WARM_UP_S", 0.3)
    baseline, ours, plain = compare_servers.closed(
        Plan(infer_ms=0.3, seconds=0.5, repeats=1, servers=[OURS, "plain FastAPI"])
    )
    assert baseline["codec_ms"] > 0
    for row in (ours, plain):
        assert row["responses_per_s"] > 0
        assert row["no_response"] == row["rejected"] == 0
    assert all(ours["stages_ms"][stage] > 0 for stage in ("decode", "infer", "encode"))
