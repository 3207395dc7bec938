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

from alignseg_serve import Segmenter, cli
from alignseg_serve.client import AsyncClient, Client
from alignseg_serve.client.errors import InvalidImageError
from alignseg_serve.segmentation.backends import local_backend
from alignseg_serve.segmentation.files import INTERRUPTED, run
from alignseg_serve.segmentation.outputs import Options
from alignseg_serve.segmentation.record import FILE_NAME
from service.settings import Settings
from tests.support.fake_engine import COLORS, FakeEngine, encoded, manifest, striped
from tests.support.live_server import live

IMAGE = striped(64, 96)


@pytest.fixture(scope="module")
def server() -> Generator[str, None, None]:
    with live() as url:
        yield url


def test_an_image_is_segmented(server: str) -> None:
    with Client(server) as client:
        assert client.ready()
        assert [c.name for c in client.classes().classes] == list(COLORS)
        result = client.segment(IMAGE, overlay=True)
    assert (result.model, result.width, result.height) == ("fake", 96, 64)
    assert (result.mask.shape, result.mask.dtype) == ((64, 96), np.uint8)
    assert [result.mask[30, x] for x in (12, 36, 60, 84)] == [0, 1, 2, 3]
    assert sum(c.pixels for c in result.classes) == 64 * 96
    assert result.overlay_png is not None
    assert Image.open(io.BytesIO(result.overlay_png)).size == (96, 64)
    assert set(result.timing_ms) >= {"decode", "infer"}


def test_mask_and_overlay_are_saved(server: str, tmp_path: Path) -> None:
    with Client(server) as client:
        with_overlay, without = client.segment(IMAGE, overlay=True), client.segment(IMAGE)
    with_overlay.save_mask(tmp_path / "mask.png")
    with_overlay.save_overlay(tmp_path / "overlay.png")
    assert (tmp_path / "mask.png").read_bytes() == with_overlay.mask_png
    assert (tmp_path / "overlay.png").read_bytes() == with_overlay.overlay_png
    with pytest.raises(ValueError, match="overlay=True"):
        without.save_overlay(tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_confidence_tiles_and_classes(server: str) -> None:
    with Client(server) as client:
        result = client.segment(IMAGE, confidence=True, tile=True, classes=["sky", "3"])
    assert [(c.name, c.confidence) for c in result.classes] == [("sky", 0.7843), ("car", 0.7843)]
    assert result.confidence_png is not None
    assert (np.asarray(Image.open(io.BytesIO(result.confidence_png))) == 200).all()
    assert result.mask[30, [12, 36, 60, 84]].tolist() == [255, 1, 255, 3]


async def test_the_async_client(server: str) -> None:
    async with AsyncClient(server) as client:
        assert await client.ready()
        result = await asyncio.gather(*(client.segment(IMAGE) for _ in range(8)))
    assert all((f.mask == result[0].mask).all() for f in result)


def test_bytes_that_are_not_an_image_are_rejected(server: str) -> None:
    with Client(server) as client, pytest.raises(InvalidImageError, match="Unsupported image format"):
        client.segment(b"hello")


def test_the_client_waits_for_an_overloaded_server() -> None:
    """Capacity for one of four clients: three get 429 with Retry-After, and all are served in the end."""
    with live(FakeEngine(before=lambda batch: threading.Event().wait(0.02)), max_in_flight=1) as url:
        done: list[int] = []
        threads = [threading.Thread(target=_segment_one, args=(url, done)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert len(done) == 4


def _segment_one(url: str, done: list[int]) -> None:
    with Client(url, timeout_s=15) as client:
        done.append(client.segment(IMAGE).width)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "in"
    (images / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png"):
        (images / name).write_bytes(encoded(IMAGE))
    (images / "bad.png").write_bytes(b"not an image")
    return images


def segment(folder: Path, out: Path, url: str, *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["segment", str(folder), "-o", str(out), "--server", url, *more])
    return result.exit_code, " ".join(result.output.split())


def test_the_command(server: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, output = segment(folder, out, server, "--overlay")
    assert code == 1
    assert "bad.png: Unsupported image format" in output
    assert "3 masks written" in output
    assert sorted(p.name for p in out.rglob("*.png")) == [
        "a.overlay.png", "a.png", "b.overlay.png", "b.png", "c.overlay.png", "c.png",
    ]  # fmt: skip
    assert np.asarray(Image.open(out / "sub" / "c.png"))[30, 84] == 3
    (folder / "bad.png").unlink()
    code, output = segment(folder, out, server, "--overlay")
    assert (code, "3 of 3 images are already done" in output) == (0, True)


def test_with_and_without_a_server_the_files_are_the_same(server: str, folder: Path, tmp_path: Path) -> None:
    served, local = tmp_path / "served", tmp_path / "local"
    segment(folder, served, server, "--overlay")
    segmenter = Segmenter.from_engine(manifest(), FakeEngine(), Settings(max_pixels=1_000_000))
    run([folder], local, local_backend(segmenter), Console(quiet=True), options=Options(overlay=True), overwrite=False)
    written = [{str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*.png")} for out in (served, local)]
    assert len(written[0]) == 6
    assert written[0] == written[1]


def test_an_unreachable_server_ends_the_run(folder: Path, tmp_path: Path) -> None:
    code, output = segment(folder, tmp_path / "out", "http://127.0.0.1:9")
    assert code == cli.USAGE_ERROR
    assert "Check the address and that the server is running." in output
    assert "Traceback" not in output


@pytest.mark.parametrize(("url", "more", "message"), [
    ("nonsense", [], "expected a URL"), ("http://x", ["--engine", "auto"], "Remove --model and --engine"),
])  # fmt: skip
def test_invalid_options_are_rejected(folder: Path, tmp_path: Path, url: str, more: list[str], message: str) -> None:
    code, output = segment(folder, tmp_path / "out", url, *more)
    assert (code, message in output) == (cli.USAGE_ERROR, True)


@pytest.fixture
def interruptible() -> Generator[None, None, None]:
    """A shell starts background jobs with SIGINT ignored, and child processes inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_the_run_without_incomplete_files(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.png").unlink()
    for i in range(40):
        (folder / f"{i:02}.png").write_bytes(encoded(IMAGE))
    out = tmp_path / "out"
    interrupted, computed = threading.Event(), itertools.count()

    def pause_after_three(_batch: object) -> None:
        if next(computed) >= 3:
            interrupted.wait(120)
        time.sleep(0.1)

    with live(FakeEngine(before=pause_after_three), overload_latency_ms=10_000) as url:
        command = [sys.executable, "-m", "alignseg_serve", "segment", str(folder), "-o", str(out), "--server", url]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603
        while not list(out.glob("*.png")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)  # for the signal to arrive, on a busy machine too
        interrupted.set()
        _, output = process.communicate(timeout=300)
    assert process.returncode == INTERRUPTED, output
    assert "run the same command to continue" in " ".join(output.split())
    done = list(out.rglob("*"))
    assert 0 < len(done) < 43
    assert all(
        path.suffix == ".png" for path in done if path.is_file() and path.name != FILE_NAME
    )  # nothing half-written


def test_a_server_that_goes_away_ends_the_run_with_the_number_of_images_that_are_done(
    folder: Path, tmp_path: Path
) -> None:
    """The server's process dies after some images; the same command then continues."""
    (folder / "bad.png").unlink()
    for i in range(12):
        (folder / f"{i:02}.png").write_bytes(encoded(IMAGE))
    out = tmp_path / "out"
    script = "\n".join(
        [
            "import itertools, os, time",
            "from tests.support.fake_engine import FakeEngine",
            "from tests.support.live_server import live",
            "count = itertools.count()",
            "def before(_):",
            "    time.sleep(0.05)  # so that the responses before the last image are sent",
            "    next(count) < 8 or os._exit(9)",
            "with live(FakeEngine(max_batch=1, before=before)) as url:",
            "    print(url, flush=True)",
            "    time.sleep(60)",
        ]
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
        assert server.stdout is not None
        code, output = segment(folder, out, server.stdout.readline().strip())
    done = len(list(out.rglob("*.png")))
    total = len(list(folder.rglob("*.png")))
    assert code == cli.USAGE_ERROR
    assert 0 < done < total
    assert f"stopped: {done} of {total} images are done; run the same command to continue" in output
    with live() as url:
        code, output = segment(folder, out, url)
    assert code == 0
    assert f"{done} of {total} images are already done" in output


def test_a_missing_httpx_is_an_error_that_names_the_package(folder: Path, tmp_path: Path) -> None:
    script = "import sys; sys.modules['httpx'] = None; from alignseg_serve.cli import main; main()"
    command = [sys.executable, "-c", script, "segment", str(folder), "-o", str(tmp_path), "--server", "http://x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == cli.USAGE_ERROR
    assert "pip install -e '.[client]'" in " ".join(done.stderr.split())
