import numpy as np
import pytest

from service import encode
from service.errors import InferenceFailed
from service.summary import summarize
from tests.fakes import COLORS, manifest, opened, striped

MODEL = manifest()
IDS = np.zeros((6, 10), dtype=np.uint8)
IDS[1:3, 2:7], IDS[5, 9] = 1, 3


def test_summaries() -> None:
    road, sky, car = summarize(IDS, MODEL)
    assert (road.id, road.name, road.color, road.pixels, road.box) == (0, "road", COLORS["road"], 49, (0, 0, 10, 6))
    assert (sky.name, sky.pixels, sky.box) == ("sky", 10, (2, 1, 5, 2))
    assert (car.name, car.pixels, car.box) == ("car", 1, (9, 5, 1, 1))
    assert sky.fraction == pytest.approx(1 / 6, abs=1e-6)


def test_summaries_equal_a_slow_count() -> None:
    ids = np.random.default_rng(0).integers(0, 4, (31, 17), dtype=np.uint8)
    for summary in summarize(ids, MODEL):
        y, x = np.nonzero(ids == summary.id)
        assert summary.pixels == len(x)
        assert summary.box == (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)


def test_an_id_without_a_class_is_the_engines_fault() -> None:
    with pytest.raises(InferenceFailed, match="class id 4, the model has 4"):
        summarize(np.full((2, 2), 4, dtype=np.uint8), MODEL)
    with pytest.raises(InferenceFailed, match="class id 4, the model has 4"):
        encode.indexed_png(np.full((2, 2), 4, dtype=np.uint8), MODEL.palette)


def test_indexed_png_holds_ids_and_colours() -> None:
    image = opened(encode.indexed_png(IDS, MODEL.palette))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), IDS)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), MODEL.palette[IDS])


def test_indexed_png_of_many_classes() -> None:
    ids = np.arange(255, dtype=np.uint8).reshape(15, 17)
    palette = np.random.default_rng(0).integers(0, 256, (255, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(opened(encode.indexed_png(ids, palette))), ids)


def test_overlay_blends() -> None:
    pixels, ids = striped(), striped()[..., 0] % 4
    overlay = np.asarray(opened(encode.overlay_png(pixels, ids, MODEL.palette, alpha=0.25)))
    expected = pixels * 0.75 + MODEL.palette[ids] * 0.25
    assert np.abs(overlay - expected).max() <= 1


def test_class_pictures() -> None:
    mask = opened(encode.class_mask_png(IDS, 1))
    assert mask.mode == "L"
    np.testing.assert_array_equal(np.asarray(mask), (IDS == 1) * 255)
    overlay = opened(encode.class_overlay_png(IDS, 1, MODEL.palette))
    overlay = overlay.convert("RGBA")
    assert np.asarray(overlay)[1, 2].tolist() == [*COLORS["sky"], 128]
    assert np.asarray(overlay)[0, 0].tolist() == [0, 0, 0, 0]
