"""At what size the model saw an image, for every value of `tile`; the buckets are 16x24 and 24x16."""

import numpy as np
import pytest

from service.rendering import media_types
from tests.service.http.test_response_formats import answer, ask
from tests.support.fake_engine import encoded, opened, striped


@pytest.mark.parametrize(
    ("size", "tile", "input_size", "tiles"),
    [((16, 24), None, [24, 16], None), ((160, 240), None, [24, 16], None), ((160, 240), "false", [24, 16], None),
     ((160, 240), "height", [36, 24], 3), ((80, 120), "true", [120, 80], 8 * 7), ((40, 400), None, [160, 16], 10),
     ((400, 40), None, [16, 160], 10), ((40, 400), "false", [24, 2], None), ((16, 24), "height", [24, 16], 1)],
)  # fmt: skip
async def test_the_json_says_at_what_size_the_model_saw_the_image(
    size: tuple[int, int], tile: str | None, input_size: list[int], tiles: int | None
) -> None:
    query = {} if tile is None else {"tile": tile}
    body = await answer(data=encoded(striped(*size)), masks="none", **query)
    assert (body["input_size"], body.get("tiles")) == (input_size, tiles)
    assert (body["width"], body["height"]) == size[::-1]


async def test_a_panorama_has_its_classes_where_they_are() -> None:
    """Four classes of 100 columns each in an image of 400 x 40: whole, a bucket would show 2 of its 16 rows."""
    response = await ask(media_types.PNG, data=encoded(striped(40, 400)))
    np.testing.assert_array_equal(np.asarray(opened(response.content)), striped(40, 400)[..., 0])
