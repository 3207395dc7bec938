"""The stages of a job, without a cluster: the same class maps as `Segmenter`, whatever the image's shape."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray")

import pyarrow as pa

from alignseg_serve.ray_job.stages import Encode, Read, Segment
from alignseg_serve.segmentation.segmenter import Segmenter
from service.errors import EngineError
from service.imaging.model_input import ImageLimits
from service.settings import Settings
from service.types import UInt8Array
from tests.support.fake_engine import FakeEngine, encoded, manifest, opened, striped

LIMITS = ImageLimits(10_000_000, 192)
SIZES = [(16, 24), (40, 30), (24, 240), (300, 25), (7, 500)]  # the last three are panoramas: tiles


def job(files: list[bytes], engine: FakeEngine) -> list[dict[str, object]]:
    rows = [{"key": f"{n}.png", "source": None, "data": data, "fingerprint": "f"} for n, data in enumerate(files)]
    settings = Settings(model=Path("unused"))
    table = Read(manifest(), LIMITS)(pa.Table.from_pylist(rows))
    table = Segment(settings, manifest(), lambda settings, model: engine)(table)
    encoded_rows: list[dict[str, object]] = Encode(manifest(), LIMITS, "png")(table).to_pylist()
    return encoded_rows


def test_every_shape_gives_the_class_map_of_segmenter() -> None:
    files = [encoded(striped(*size)) for size in SIZES]
    engine = FakeEngine(max_batch=4)
    results = job(files, engine)
    segmenter = Segmenter.from_engine(manifest(), FakeEngine(), Settings())
    expected = [segmenter.segment(data) for data in files]
    assert [one.tiles > 1 for one in expected] == [False, False, True, True, True]
    assert sum(batch[0] for batch in engine.batches) == sum(one.tiles for one in expected)
    for row, segmentation in zip(results, expected, strict=True):
        assert isinstance(row["png"], bytes)
        np.testing.assert_array_equal(np.asarray(opened(row["png"])), segmentation.mask)


def test_an_image_fails_alone_if_one_of_its_tiles_does() -> None:
    def fail(batch: UInt8Array) -> None:
        if (batch[..., 2] == 7).any():
            raise EngineError("a bad tile")

    bad = striped(24, 240)
    bad[:, 100:120, 2] = 7
    results = job([encoded(striped()), encoded(bad), encoded(striped(24, 240))], FakeEngine(before=fail))
    assert [row["error"] is None for row in results] == [True, False, True]
    assert "a bad tile" in str(results[1]["error"])
