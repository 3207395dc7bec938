import numpy as np
import pytest

from service.imaging.letterbox import choose_bucket, fit, letterbox, unletterbox
from service.types import PreparedImage

WIDE, TALL, SQUARE = (360, 480), (480, 360), (400, 400)


@pytest.mark.parametrize(
    ("size", "bucket"),
    [((720, 960), WIDE), ((960, 720), TALL), ((1000, 1000), SQUARE), ((90, 120), WIDE), ((10, 10), SQUARE),
     ((1, 5000), WIDE), ((5000, 1), TALL)],
)  # fmt: skip
def test_the_bucket_that_keeps_most_pixels_is_chosen(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    assert choose_bucket(size, [WIDE, TALL, SQUARE]) == bucket


def test_a_larger_bucket_is_chosen_only_if_it_keeps_more() -> None:
    small, large = (180, 240), (360, 480)
    assert choose_bucket((720, 960), [small, large]) == large
    assert choose_bucket((180, 240), [small, large]) == small  # first of equals


def test_the_content_fits_inside_the_bucket() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        size, bucket = tuple(rng.integers(1, 3000, 2).tolist()), tuple(rng.integers(1, 600, 2).tolist())
        height, width = fit(size, bucket)
        assert 1 <= height <= bucket[0]
        assert 1 <= width <= bucket[1]
        assert height == bucket[0] or width == bucket[1] or (height, width) == size


def test_an_image_of_the_buckets_size_is_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*WIDE, 3), dtype=np.uint8)
    prepared = letterbox(pixels, [WIDE])
    assert prepared.pixels is pixels
    assert prepared.bucket == prepared.content == prepared.original == WIDE


@pytest.mark.parametrize(
    ("size", "content"), [((360, 480), (360, 480)), ((351, 458), (369, 481)), ((720, 960), (361, 481))]
)
def test_an_image_that_nearly_fills_the_bucket_keeps_its_pixels(
    size: tuple[int, int], content: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    prepared = letterbox(pixels, [(369, 481)])
    assert prepared.content == content
    assert np.array_equal(prepared.pixels[: size[0], : size[1]], pixels) == (content == size)


def test_padding_repeats_the_edge() -> None:
    pixels = np.arange(4 * 8 * 3, dtype=np.uint8).reshape(4, 8, 3)
    prepared = letterbox(pixels, [(8, 8)])
    assert prepared.content == (4, 8)
    np.testing.assert_array_equal(prepared.pixels[:4], pixels)
    np.testing.assert_array_equal(prepared.pixels[4:], np.broadcast_to(pixels[-1:], (4, 8, 3)))
    wide = letterbox(pixels.transpose(1, 0, 2).copy(), [(8, 8)])
    assert (wide.pixels[:, 4:] == wide.pixels[:, 3:4]).all()


def test_unletterbox_cuts_the_padding_off() -> None:
    ids = np.full((8, 8), 9, dtype=np.uint8)
    ids[:4] = 1
    prepared = PreparedImage(np.zeros((8, 8, 3), np.uint8), content=(4, 8), original=(40, 80))
    restored = unletterbox(ids, prepared)
    assert restored.shape == (40, 80)
    assert (restored == 1).all()


@pytest.mark.parametrize("size", [(37, 53), (400, 300), (97, 1031), (8, 8), (1, 1), (720, 960)])
def test_unletterbox_samples_at_pixel_centres(size: tuple[int, int]) -> None:
    """Pixel i of n takes the id that covers (i + 1/2) / n of the content."""
    prepared = letterbox(np.zeros((*size, 3), np.uint8), [(48, 64)])
    ids = np.random.default_rng(1).integers(0, 255, (48, 64), dtype=np.uint8)
    (height, width), (ch, cw) = size, prepared.content
    rows = (2 * np.arange(height) + 1) * ch // (2 * height)
    columns = (2 * np.arange(width) + 1) * cw // (2 * width)
    np.testing.assert_array_equal(unletterbox(ids, prepared), ids[rows][:, columns])


@pytest.mark.parametrize("scale", [2, 3, 4, 5])
def test_an_edge_comes_back_where_it_was(scale: int) -> None:
    """Two halves, reduced and enlarged again: a half-pixel shift would move the border by scale / 2 pixels."""
    pixels = np.zeros((36 * scale, 48 * scale, 3), dtype=np.uint8)
    pixels[:, 24 * scale :] = 255
    pixels[18 * scale :, :, 1] = 255
    prepared = letterbox(pixels, [(40, 48)])
    assert prepared.content == (36, 48)
    vertical = unletterbox((prepared.pixels[..., 0] > 127).astype(np.uint8), prepared)
    horizontal = unletterbox((prepared.pixels[..., 1] > 127).astype(np.uint8), prepared)
    np.testing.assert_array_equal(vertical, pixels[..., 0] // 255)
    np.testing.assert_array_equal(horizontal, pixels[..., 1] // 255)
