"""`alignseg segment --ray` on a real cluster: interrupted and resumed, each image once, bad ones reported."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from pycocotools import mask as coco

from tests.support.fake_engine import COLORS, encoded, opened, striped

pytest.importorskip("ray")

import pyarrow as pa
import pyarrow.parquet as pq

from alignseg_serve.ray_job.storage import open_path
from tests.ray import job

COUNT = 240
HOLD = 32  # pictures that each of three engines does in a run that is to be interrupted: neither none nor all
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools


def _job(cluster: Any, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.ray.job", *map(str, arguments)]
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)  # noqa: S603


def _rows(out: str, table: str = "pictures") -> list[dict[str, Any]]:
    folder = open_path(out) / table
    rows: list[dict[str, Any]] = pq.read_table(folder.path, filesystem=folder.system).to_pylist()
    return rows


def _files(out: str) -> int:
    return sum(name.endswith(".parquet") for name in (open_path(out) / "pictures").files())


def _interrupted(cluster: Any, source: str, out: str) -> None:
    """SIGINT once two more files of results are there; every engine stops before all is done."""
    before = _files(out)
    process = _job(cluster, source, out, "png", HOLD)
    while process.poll() is None and _files(out) < before + 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=300)[1]
    assert process.returncode == 130, output
    assert "run the same command to continue" in output
    assert _rows(out)


def _finished(cluster: Any, source: str, out: str) -> str:
    last = _job(cluster, source, out, "png")
    output = last.communicate(timeout=300)[1]
    assert last.returncode == 1, output  # as some can't be segmented
    assert "images are already done, skipped" in output
    assert " 0 masks written" not in output
    return output


def _pictures(count: int) -> dict[str, bytes]:
    return {f"street {n % 5}/{n}.png": encoded(striped(12 + n % 9, 32)) for n in range(count)}


BAD = {"bad.jpg": b"no picture", "short.png": encoded(striped())[:-30]}


def _lies_there(out: str, pictures: Iterable[str]) -> None:
    """Each picture once, the bad ones listed; masks as the rows say."""
    names = Counter(row["picture"] for row in _rows(out))
    assert set(names) == set(pictures)
    assert set(names.values()) == {1}
    assert {row["picture"] for row in _rows(out, "failed")} == set(BAD)
    for row in _rows(out)[::37]:
        mask = opened((open_path(out) / row["mask"]).read())
        assert mask.size == (row["width"], row["height"])
        counts = np.bincount(np.asarray(mask).ravel(), minlength=len(COLORS))
        assert {one["id"]: one["pixels"] for one in row["classes"]} == {n: k for n, k in enumerate(counts) if k}


def test_interrupted_twice_each_picture_is_done_once(ray_cluster: Any, tmp_path: Path) -> None:
    source, out, pictures = tmp_path / "in", tmp_path / "out", _pictures(COUNT)
    for name, data in (pictures | BAD).items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    for _ in range(2):
        _interrupted(ray_cluster, str(source), str(out))
    output = _finished(ray_cluster, str(source), str(out))
    assert "bad.jpg: Got 10 bytes" in output
    assert "2 failed" in output
    _lies_there(str(out), pictures)
    assert not list(out.rglob("*.tmp"))


def test_replaced_images_are_segmented_again(
    ray_cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out, pictures = tmp_path / "in", tmp_path / "out", _pictures(24)
    for name, data in pictures.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    assert job.main(str(source), str(out), "png") == 0
    names = list(pictures)
    for name in names[:3]:
        (source / name).write_bytes(encoded(striped(40, 16)))
    (source / names[5]).unlink()  # its result stays
    capsys.readouterr()
    assert job.main(str(source), str(out), "png") == 0
    output = capsys.readouterr().err
    assert "3 images were replaced since they were segmented" in output
    assert "21 images are already done" in output
    assert "3 masks written" in output
    rows = {row["picture"]: (row["width"], row["height"]) for row in _rows(str(out))}
    assert [rows[name] for name in names[:3]] == [(16, 40)] * 3
    (mask,) = (row["mask"] for row in _rows(str(out)) if row["picture"] == names[0])
    assert opened((out / mask).read_bytes()).size == (16, 40)
    assert Counter(row["picture"] for row in _rows(str(out))) == Counter(names)


@pytest.fixture
def bucket() -> Generator[str, None, None]:
    """A bucket of an S3 server of this process: its URI with {} for a folder in it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    uri = f"s3://key:secret@jobs/{{}}?scheme=http&endpoint_override={host}:{port}&region=us-east-1"
    try:
        httpx.put(f"http://{host}:{port}/jobs").raise_for_status()
        yield uri
    finally:
        server.stop()


def test_on_object_storage_it_goes_on_as_well(ray_cluster: Any, bucket: str) -> None:
    source, out, pictures = bucket.format("in"), bucket.format("out"), _pictures(COUNT // 2)
    for name, data in (pictures | BAD).items():
        (open_path(source) / name).write(data)
    _interrupted(ray_cluster, source, out)
    output = _finished(ray_cluster, source, out)
    assert "secret" not in output
    _lies_there(out, pictures)


def test_parquet_in_rle_out(ray_cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through fsspec's own file system, as any storage that pyarrow does not know."""
    table = tmp_path / "in" / "part-0.parquet"
    table.parent.mkdir()
    images = [{"bytes": encoded(striped(8 + n, 24)), "path": None} for n in range(20)] + [{"bytes": b"", "path": None}]
    pq.write_table(pa.table({"label": list(range(21)), "image": images}), table, row_group_size=6)
    assert job.main(f"local://{tmp_path}/in", f"local://{tmp_path}/out", "rle") == 1
    assert "part-0.parquet#20: Got an empty file" in capsys.readouterr().err
    rows = {row["picture"]: row for row in _rows(str(tmp_path / "out"))}
    assert set(rows) == {f"part-0.parquet#{n}" for n in range(20)}
    for number, image in enumerate(images[:20]):
        row = rows[f"part-0.parquet#{number}"]
        expected = np.asarray(opened(image["bytes"]))[..., 0] % len(COLORS)
        assert expected.shape == (row["height"], row["width"])
        for one in row["classes"]:
            rle = {"size": [row["height"], row["width"]], "counts": one["counts"].encode()}
            assert coco.area(rle) == one["pixels"]
            if number + 8 == 16:  # its bucket's own size: nothing was resized
                assert np.array_equal(coco.decode(rle), expected == one["id"])
