"""alignseg_serve.client and `alignseg segment --server` against a server on a real port."""

import asyncio
import io
import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from alignseg_serve import cli
from alignseg_serve.client import AsyncClient, Client
from alignseg_serve.client.errors import InvalidImageError
from alignseg_serve.segment.files import INTERRUPTED, run
from alignseg_serve.segment.local_backend import locally
from tests.support.fake_engine import COLORS, FakeEngine, encoded, manifest, striped
from tests.support.live_server import live

PICTURE = striped(64, 96)


@pytest.fixture(scope="module")
def server() -> Generator[str, None, None]:
    with live() as url:
        yield url


def test_a_picture_in_ids_out(server: str) -> None:
    with Client(server) as client:
        assert client.ready()
        assert [c.name for c in client.classes().classes] == list(COLORS)
        found = client.segment(PICTURE, overlay=True)
    assert (found.model, found.width, found.height) == ("fake", 96, 64)
    assert (found.mask.shape, found.mask.dtype) == ((64, 96), np.uint8)
    assert [found.mask[30, x] for x in (12, 36, 60, 84)] == [0, 1, 2, 3]
    assert sum(c.pixels for c in found.classes) == 64 * 96
    assert found.overlay_png is not None
    assert Image.open(io.BytesIO(found.overlay_png)).size == (96, 64)
    assert set(found.timing_ms) >= {"decode", "infer"}


def test_what_else_can_be_asked_for(server: str) -> None:
    with Client(server) as client:
        found = client.segment(PICTURE, confidence=True, tile=True, classes=["sky", "3"])
    assert [(c.name, c.confidence) for c in found.classes] == [("sky", 0.7843), ("car", 0.7843)]
    assert found.confidence_png is not None
    assert (np.asarray(Image.open(io.BytesIO(found.confidence_png))) == 200).all()
    assert found.mask[30, [12, 36, 60, 84]].tolist() == [255, 1, 255, 3]


async def test_async(server: str) -> None:
    async with AsyncClient(server) as client:
        assert await client.ready()
        found = await asyncio.gather(*(client.segment(PICTURE) for _ in range(8)))
    assert all((f.mask == found[0].mask).all() for f in found)


def test_no_picture(server: str) -> None:
    with Client(server) as client, pytest.raises(InvalidImageError, match="Not a picture"):
        client.segment(b"hello")


def test_a_full_server_is_waited_for() -> None:
    """One place, four clients at once: three are sent away with Retry-After, and all are served in the end."""
    with live(FakeEngine(before=lambda batch: threading.Event().wait(0.02)), max_in_flight=1) as url:
        done: list[int] = []
        threads = [threading.Thread(target=_segment_one, args=(url, done)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(done) == 4


def _segment_one(url: str, done: list[int]) -> None:
    with Client(url, timeout_s=15) as client:
        done.append(client.segment(PICTURE).width)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "in"
    (pictures / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png"):
        (pictures / name).write_bytes(encoded(PICTURE))
    (pictures / "bad.png").write_bytes(b"no picture")
    return pictures


def segment(folder: Path, out: Path, url: str, *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["segment", str(folder), "-o", str(out), "--server", url, *more])
    return result.exit_code, " ".join(result.output.split())


def test_the_command(server: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, told = segment(folder, out, server, "--overlay")
    assert code == 1
    assert "bad.png: Not a picture" in told
    assert "3 written" in told
    assert sorted(p.name for p in out.rglob("*.png")) == [
        "a.overlay.png", "a.png", "b.overlay.png", "b.png", "c.overlay.png", "c.png",
    ]  # fmt: skip
    assert np.asarray(Image.open(out / "sub" / "c.png"))[30, 84] == 3
    (folder / "bad.png").unlink()
    code, told = segment(folder, out, server, "--overlay")
    assert (code, "3 of 3 are done already" in told) == (0, True)


def test_with_and_without_a_server_the_files_are_the_same(server: str, folder: Path, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    segment(folder, there, server, "--overlay")
    segmenter = locally(manifest(), FakeEngine(), 1_000_000)
    run([folder], here, segmenter, Console(quiet=True), overlay=True, overwrite=False)
    written = [{str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*.png")} for out in (there, here)]
    assert len(written[0]) == 6
    assert written[0] == written[1]


def test_a_server_that_is_not_there_ends_the_run(folder: Path, tmp_path: Path) -> None:
    code, told = segment(folder, tmp_path / "out", "http://127.0.0.1:9")
    assert code == cli.UNUSABLE
    assert "Is the server running there?" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(("url", "more", "told"), [
    ("nonsense", [], "expected a URL"), ("http://x", ["--engine", "auto"], "leave --model and --engine out"),
])  # fmt: skip
def test_what_can_not_be_meant(folder: Path, tmp_path: Path, url: str, more: list[str], told: str) -> None:
    code, output = segment(folder, tmp_path / "out", url, *more)
    assert (code, told in output) == (cli.UNUSABLE, True)


@pytest.fixture
def interruptible() -> Generator[None, None, None]:
    """A shell starts background jobs deaf to SIGINT, and their children would be so too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_cleanly_and_the_next_run_goes_on(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.png").unlink()
    for i in range(40):
        (folder / f"{i:02}.png").write_bytes(encoded(PICTURE))
    out = tmp_path / "out"
    interrupted, computed = threading.Event(), itertools.count()

    def stop_on_the_way(_batch: object) -> None:
        if next(computed) >= 3:
            interrupted.wait(20)
        time.sleep(0.1)

    with live(FakeEngine(before=stop_on_the_way), overload_latency_ms=10_000) as url:
        command = [sys.executable, "-m", "alignseg_serve", "segment", str(folder), "-o", str(out), "--server", url]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603
        while not list(out.glob("*.png")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)  # for the signal to be seen, on a busy machine too
        interrupted.set()
        _, told = process.communicate(timeout=20)
    assert process.returncode == INTERRUPTED, told
    assert "the same command goes on from here" in " ".join(told.split())
    done = list(out.rglob("*"))
    assert 0 < len(done) < 43
    assert all(path.suffix == ".png" for path in done if path.is_file())  # nothing half-written


def test_without_httpx_it_says_what_to_install(folder: Path, tmp_path: Path) -> None:
    script = "import sys; sys.modules['httpx'] = None; from alignseg_serve.cli import main; main()"
    command = [sys.executable, "-c", script, "segment", str(folder), "-o", str(tmp_path), "--server", "http://x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == cli.UNUSABLE
    assert "pip install -e '.[client]'" in " ".join(done.stderr.split())
