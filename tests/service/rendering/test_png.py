import numpy as np
import pytest

from service.rendering.png import grey_png, mask_png
from tests.support.fake_engine import opened


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (5, 8), (13, 17), (300, 401)])
def test_pillow_reads_what_was_written(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, size, dtype=np.uint8)
    grey = opened(grey_png(values))
    assert grey.mode == "L"
    np.testing.assert_array_equal(np.asarray(grey), values)
    mask = opened(mask_png(values > 99))
    assert mask.mode == "1"
    np.testing.assert_array_equal(np.asarray(mask), values > 99)
    np.testing.assert_array_equal(np.asarray(mask.convert("L")), np.where(values > 99, 255, 0))


def test_non_contiguous_arrays_are_written() -> None:
    values = np.arange(120, dtype=np.uint8).reshape(10, 12)
    for view in (values.T, values[::2, ::3], values[:, ::-1]):
        np.testing.assert_array_equal(np.asarray(opened(grey_png(view))), view)
        np.testing.assert_array_equal(np.asarray(opened(mask_png(view > 50))), view > 50)
