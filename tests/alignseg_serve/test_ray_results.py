"""What a Ray job counts as done: without a cluster, the record of its results."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignseg_serve.ray_job import inputs, results
from alignseg_serve.ray_job.storage import open_path
from service.errors import AlignSegError
from tests.support.fake_engine import encoded, striped

JOB = {"model": "fake 1", "sha256": "abc", "source": "in", "masks": "png"}
PNG = encoded(striped())


def segment(source: Path, out: Path) -> Sequence[str]:
    """Record all images that are not done, as a job does. Returns their keys."""
    parts, folder = inputs.parts(str(source)), open_path(str(out))
    results.begin(folder, JOB, overwrite=False)
    results.forget_replaced(folder, inputs.fingerprints(parts, folder), partial(inputs.file_of, parts=parts))
    done = results.done_hashes(folder)
    rows = [row for part in parts for row in inputs.images(part, folder, lambda key: not results.is_done(done, key))]
    results.record(folder, [_result(row) for row in rows], [])
    return sorted(row["key"] for row in rows)


def _result(row: dict[str, Any]) -> dict[str, Any]:
    return {"picture": row["key"], "height": 1, "width": 1, "classes": [], "fingerprint": row["fingerprint"]}


def test_only_replaced_and_new_images_are_segmented_again(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a.png", "b#1.png", "c.png"):
        (source / name).write_bytes(PNG)
    assert segment(source, out) == ["a.png", "b#1.png", "c.png"]
    assert segment(source, out) == []
    (source / "b#1.png").write_bytes(PNG + b"more")
    (source / "c.png").unlink()
    (source / "d.png").write_bytes(PNG)
    assert segment(source, out) == ["b#1.png", "d.png"]
    assert segment(source, out) == []
    assert sorted(results.keys(open_path(str(out)))) == ["a.png", "b#1.png", "c.png", "d.png"]


def test_rows_of_a_replaced_parquet_file_are_segmented_again(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a.parquet", "b.parquet"):
        pq.write_table(pa.table({"image": [PNG, PNG]}), source / name, row_group_size=1)
    assert len(segment(source, out)) == 4
    pq.write_table(pa.table({"image": [PNG, PNG + b"more"]}), source / "b.parquet", row_group_size=1)
    assert segment(source, out) == ["b.parquet#0", "b.parquet#1"]
    assert segment(source, out) == []


def test_results_of_older_versions_count_as_done(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.png").write_bytes(PNG)
    segment(source, out)
    (path,) = (out / results.PICTURES).iterdir()
    pq.write_table(pq.read_table(path).drop_columns(["fingerprint"]), path)
    (source / "a.png").write_bytes(PNG + b"more")
    assert segment(source, out) == []


def test_another_model_of_the_same_name_is_another_job(tmp_path: Path) -> None:
    folder = open_path(str(tmp_path))
    older = {name: value for name, value in JOB.items() if name != "sha256"}
    results.begin(folder, older, overwrite=False)
    results.begin(folder, JOB, overwrite=False)  # older versions noted no hash
    with pytest.raises(AlignSegError, match="sha256: abc before, def now"):
        results.begin(folder, JOB | {"sha256": "def"}, overwrite=False)
