"""`alignseg segment --ray` on a real cluster: interrupted and gone on with, each picture once, bad ones told."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from tests.fakes import COLORS, encoded, opened, striped

pytest.importorskip("ray")

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fleet import job

COUNT = 240
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools


def _job(cluster: Any, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.fleet.job", *map(str, arguments)]
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)  # noqa: S603


def _rows(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / "pictures").to_pylist()
    return rows


def _interrupted(process: subprocess.Popen[str], out: Path, files: int) -> str:
    """SIGINT once that many more files of results are there."""
    before = len(list(out.glob("pictures/*.parquet")))
    while process.poll() is None and len(list(out.glob("pictures/*.parquet"))) < before + files:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130, told
    return told


def test_interrupted_twice_each_picture_is_done_once(ray_cluster: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for number in range(COUNT):
        path = source / f"street {number % 5}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(striped(12 + number % 9, 32)))
    (source / "bad.jpg").write_bytes(b"no picture")
    (source / "short.png").write_bytes(encoded(striped())[:-30])
    for _ in range(2):
        told = _interrupted(_job(ray_cluster, source, out, "png"), out, 2)
        assert "the same command goes on from here" in told
        assert 0 < len(_rows(out)) < COUNT
    last = _job(ray_cluster, source, out, "png")
    told = last.communicate(timeout=100)[1]
    assert last.returncode == 1, told
    assert "are done already and skipped" in told
    assert "bad.jpg: got 10 bytes" in told
    assert "2 failed" in told
    names = Counter(row["picture"] for row in _rows(out))
    assert set(names) == {str(path.relative_to(source)) for path in source.glob("street*/*")}
    assert set(names.values()) == {1}
    assert {row["picture"] for row in pq.read_table(out / "failed").to_pylist()} == {"bad.jpg", "short.png"}
    for row in _rows(out)[::37]:
        mask = opened((out / row["mask"]).read_bytes())
        assert mask.size == (row["width"], row["height"])
        seen = np.bincount(np.asarray(mask).ravel(), minlength=len(COLORS))
        assert {one["id"]: one["pixels"] for one in row["classes"]} == {n: k for n, k in enumerate(seen) if k}
    assert not list(out.rglob("*.part"))


def test_parquet_in_rle_out(ray_cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through fsspec's own file system, as any storage that pyarrow does not know."""
    table = tmp_path / "in" / "part-0.parquet"
    table.parent.mkdir()
    images = [{"bytes": encoded(striped(8 + n, 24)), "path": None} for n in range(20)] + [{"bytes": b"", "path": None}]
    pq.write_table(pa.table({"label": list(range(21)), "image": images}), table, row_group_size=6)
    assert job.main(f"local://{tmp_path}/in", f"local://{tmp_path}/out", "rle") == 1
    assert "part-0.parquet#20: got an empty file" in capsys.readouterr().err
    found = {row["picture"]: row for row in _rows(tmp_path / "out")}
    assert set(found) == {f"part-0.parquet#{n}" for n in range(20)}
    for number, image in enumerate(images[:20]):
        row = found[f"part-0.parquet#{number}"]
        expected = np.asarray(opened(image["bytes"]))[..., 0] % len(COLORS)
        assert expected.shape == (row["height"], row["width"])
        for one in row["classes"]:
            rle = {"size": [row["height"], row["width"]], "counts": one["counts"].encode()}
            assert coco.area(rle) == one["pixels"]
            if number + 8 == 16:  # its bucket's own size: nothing was resized
                assert np.array_equal(coco.decode(rle), expected == one["id"])
