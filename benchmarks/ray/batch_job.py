"""A job of 10,000 small images through Ray Data: is each done once despite interruptions, does memory grow?

    python -m benchmarks.ray.batch_job

The fake engine waits a millisecond. The job runs in its own process, is interrupted by SIGINT after a third and after
two thirds, and starts its own Ray each time. Then jobs of a fifth of the images and of all of them run to their end,
and the memory of the job and of Ray is recorded.
"""

import argparse
import io
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console

from alignseg_serve.ray_job.job import run
from alignseg_serve.segmentation.files import INTERRUPTED, SOME_FAILED
from benchmarks.harness import ROOT, SCENE, report
from benchmarks.ray.memory_sampler import RayMemory
from benchmarks.server.fake_engine_server import FakeEngine, manifest
from service.model_folder.manifest import Manifest
from service.settings import Settings

CORRUPT: Final = 10
SIZE: Final = (120, 90)


def open_fake_engine(settings: Settings, model: Manifest) -> FakeEngine:
    """See stages.EngineFactory."""
    return FakeEngine(0.001, max_batch=16, growth=0.0)


def job(source: Path, out: Path, masks: Any) -> int:
    """What the job's process runs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # started in the background, it would ignore it
    console = Console(stderr=True, width=200)
    return run(
        str(source), str(out), Settings(), console, masks=masks, engine_factory=open_fake_engine, manifest=manifest()
    )


def memory(count: int, masks: str) -> dict[str, Any]:
    """One run over `count` images."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in", Path(folder) / "out"
        _write_images(source, count)
        results = _run(source, out, masks, None)
    return {"images": count, "seconds": results["seconds"], **results["memory"]}


def interrupted(count: int, masks: str) -> dict[str, Any]:
    """Three runs over the same images, two of them interrupted."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in", Path(folder) / "out"
        _write_images(source, count)
        runs = [_run(source, out, masks, count * part // 3 if part else None) for part in (1, 2, None)]
        names = Counter(pq.read_table(out / "pictures", columns=["picture"]).column(0).to_pylist())
        failed = pq.read_table(out / "failed").num_rows
        files = len(list((out / "masks").rglob("*.png")))
    runs = [{**one, "memory": {"peak_mb": one["memory"]["peak_mb"]}} for one in runs]
    twice = sum(times > 1 for times in names.values())
    return {
        "images": count, "masks": masks, "runs": runs, "finished": len(names), "finished_more_than_once": twice,
        "failed": failed, "corrupt_images": CORRUPT, "mask_files": files,
    }  # fmt: skip


def _run(source: Path, out: Path, masks: str, until: int | None) -> dict[str, Any]:
    """until: number of rows after which it is interrupted; None: it runs to its end."""
    command = [sys.executable, "-m", "benchmarks.ray.batch_job", "--job", str(source), str(out), masks]
    began, before = time.monotonic(), _rows(out)
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    memory_sampler = RayMemory(process.pid)
    while until is not None and process.poll() is None and _rows(out) < until:
        time.sleep(0.2)
    if until is not None:
        process.send_signal(signal.SIGINT)
    _, log = process.communicate()
    if process.returncode not in {0, SOME_FAILED, INTERRUPTED}:
        raise RuntimeError(f"the job ended with {process.returncode}:\n{log}")
    last_line = log.strip().splitlines()[-1]
    return {
        "exit": process.returncode, "seconds": round(time.monotonic() - began, 1), "rows_before": before,
        "rows_after": _rows(out), "memory": memory_sampler.results(), "last_line": last_line,
    }  # fmt: skip


def _rows(out: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in (out / "pictures").glob("*.parquet"))


def _write_images(source: Path, count: int) -> None:
    image = Image.open(SCENE).convert("RGB").resize(SIZE)
    for number in range(count):
        path = source / f"{number % 100:02}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=50 + number % 45)
        path.write_bytes(encoded.getvalue())
    for number in range(CORRUPT):
        (source / f"corrupt {number}.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="thousands: rows are written in large files")
    parser.add_argument("--masks", choices=("png", "rle"), default="png")
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        source, out, masks = options.job
        raise SystemExit(job(Path(source), Path(out), masks))
    report("ray-batch-job", {
        **interrupted(options.count, options.masks),
        "memory": [memory(count, options.masks) for count in (options.count // 5, options.count)],
    })  # fmt: skip


if __name__ == "__main__":
    main()
