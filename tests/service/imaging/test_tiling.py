from itertools import pairwise

import numpy as np
import pytest

from service.errors import ImageTooLarge
from service.imaging.model_input import ImageLimits, SingleInput, open_image
from service.imaging.tile_plan import native, plan_tiles, span_count
from service.imaging.tiling import TiledInput, spans
from tests.support.fake_engine import encoded


@pytest.mark.parametrize("window", [1, 2, 3, 7, 16, 360])
def test_spans_cover_overlap_and_split_in_the_middle(window: int) -> None:
    for length in (1, 2, window, window + 1, 2 * window, 5 * window + 3, 1031):
        covering = spans(length, window)
        assert len(covering) == span_count(length, window)
        assert [i for s in covering for i in range(s.first, s.last)] == list(range(length))
        assert covering[0].start == 0
        assert covering[-1].stop == length
        for left, right in pairwise(covering):
            assert left.stop - right.start >= window // 3
            assert abs((left.stop - left.last) - (right.first - right.start)) <= 1
        for s in covering:
            assert s.stop - s.start == min(window, length)
            assert s.start <= s.first <= s.last <= s.stop


@pytest.mark.parametrize("size", [(40, 60), (41, 24), (16, 25), (10, 100), (97, 16), (64, 64)])
def test_the_maps_of_tiles_are_merged_in_place(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    tiled = TiledInput(pixels, native(size, [(16, 24), (24, 16)]))
    tensors = [tiled.tensor(i) for i in range(tiled.count)]
    assert len({t.shape for t in tensors}) == 1
    assert all(t.flags.c_contiguous for t in tensors)
    np.testing.assert_array_equal(tiled.assemble([t[..., 0] for t in tensors]), pixels[..., 0])


def test_each_pixel_comes_from_the_tile_with_the_nearest_centre() -> None:
    tiled = TiledInput(np.zeros((16, 56, 3), dtype=np.uint8), native((16, 56), [(16, 24)]))
    numbered = [np.full((16, 24), i, dtype=np.uint8) for i in range(tiled.count)]
    centres = np.array([s.start + 12 for s in spans(56, 24)])
    nearest = np.abs(np.arange(56)[:, None] + 0.5 - centres).argmin(axis=1)
    np.testing.assert_array_equal(tiled.assemble(numbered), np.broadcast_to(nearest, (16, 56)))


def test_the_bucket_with_the_fewest_tiles_is_used() -> None:
    assert native((48, 16), [(16, 24), (24, 16)]).bucket == (24, 16)


def test_too_many_tiles_are_rejected_with_their_number() -> None:
    with pytest.raises(
        ImageTooLarge, match=r"100 x 10 pixels needs 12 tiles of 12 x 10, limit 11 \(ALIGNSEG_MAX_TILES"
    ):
        plan_tiles((10, 100), [(10, 12)], "true", max_tiles=11)
    with pytest.raises(ImageTooLarge):
        plan_tiles((1, 1_000_000), [(4, 4)], "true", max_tiles=64)  # without making the tiles


def test_an_image_that_fits_is_not_tiled() -> None:
    pixels = np.zeros((16, 24, 3), np.uint8)
    for data in (pixels, encoded(pixels)):
        for buckets, tile, kind in (
            ([(16, 24)], "true", SingleInput),
            ([(8, 8)], "false", SingleInput),
            ([(8, 8)], "true", TiledInput),
        ):
            returned_pixels, model_input = open_image(data, buckets, ImageLimits(10**6, 50), tile=tile)
            assert isinstance(model_input, kind)
            assert returned_pixels is None
