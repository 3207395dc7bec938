import numpy as np
import pytest

from service.errors import InferenceFailed
from service.rendering.class_stats import summarize
from tests.support.fake_engine import COLORS, manifest

MODEL = manifest()


def test_area_box_and_names() -> None:
    ids = np.zeros((6, 10), dtype=np.uint8)
    ids[1:3, 2:7], ids[5, 9] = 1, 3
    road, sky, car = summarize(ids, MODEL)
    assert (road.id, road.name, road.color, road.pixels, road.box) == (0, "road", COLORS["road"], 49, (0, 0, 10, 6))
    assert (sky.name, sky.pixels, sky.box) == ("sky", 10, (2, 1, 5, 2))
    assert (car.name, car.pixels, car.box) == ("car", 1, (9, 5, 1, 1))
    assert sky.fraction == pytest.approx(1 / 6, abs=1e-6)
    assert sky.confidence is None


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (31, 17), (64, 64)])
def test_summaries_equal_a_slow_count(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for ids in (rng.integers(0, 4, size, dtype=np.uint8), np.full(size, 3, dtype=np.uint8)):
        confidence = rng.integers(0, 256, size, dtype=np.uint8)
        summaries = summarize(ids, MODEL, confidence)
        assert [s.id for s in summaries] == np.unique(ids).tolist()
        for s in summaries:
            y, x = np.nonzero(ids == s.id)
            assert s.pixels == len(x)
            assert s.box == (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)
            assert s.confidence == pytest.approx(confidence[ids == s.id].mean() / 255, abs=1e-4)


@pytest.mark.parametrize("highest", [4, 255])
def test_an_id_without_a_class_is_an_inference_failure(highest: int) -> None:
    with pytest.raises(InferenceFailed, match=f"class id {highest}, the model has 4"):
        summarize(np.full((2, 2), highest, dtype=np.uint8), MODEL)
