import pytest

from service.admission.pixel_budget import PixelBudget
from service.errors import Overloaded


def test_pixels_are_limited_and_released() -> None:
    budget = PixelBudget(100, lambda: 2.0)
    with budget.reservation() as reserve:
        reserve(60)
        with budget.reservation() as other:
            other(40)
            with pytest.raises(
                Overloaded, match="100 decoded pixels in memory, 1 more in this image, limit 100"
            ) as caught:
                other(1)
        assert budget.reserved == 60  # what was rejected was not reserved
    assert budget.reserved == 0
    assert (caught.value.what, caught.value.retry_after_s) == ("pixels", 2.0)


def test_a_single_image_always_fits() -> None:
    budget = PixelBudget(100, lambda: 0.0)
    with pytest.raises(KeyError), budget.reservation() as reserve:
        reserve(1000)
        assert budget.reserved == 1000
        raise KeyError
    assert budget.reserved == 0
