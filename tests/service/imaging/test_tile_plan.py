import numpy as np
import pytest

from service.errors import ImageTooLarge
from service.imaging.model_input import ImageLimits, SingleInput, open_image
from service.imaging.tile_plan import AUTO_MAX_TILES, MIN_SHARE, native, plan_tiles, shorter_side
from service.types import Size
from tests.support.fake_engine import encoded

BUCKETS = [(369, 481), (481, 369), (417, 417), (289, 609)]


@pytest.mark.parametrize("long_side", [4300, 6000, 8000, 12_000, 20_000])
@pytest.mark.parametrize("is_tall", [False, True])
def test_a_panorama_fills_at_least_half_of_the_bucket(long_side: int, is_tall: bool) -> None:
    short_axis = 1 if is_tall else 0
    size = (long_side, 1000) if is_tall else (1000, long_side)
    plan = plan_tiles(size, BUCKETS, "auto", max_tiles=192)
    if plan is None:  # a whole image fills as much
        (data, share) = open_image(np.zeros((*size, 3), np.uint8), BUCKETS, ImageLimits(10**9))[1], 0.0
        assert isinstance(data, SingleInput)
        share = data.input_size[short_axis] / data.prepared.bucket[short_axis]
    else:
        share = plan.content[short_axis] / plan.bucket[short_axis]
        assert 1 < plan.count <= AUTO_MAX_TILES
        assert plan.content[0] / plan.content[1] == pytest.approx(size[0] / size[1], rel=0.01)
    assert share >= MIN_SHARE


@pytest.mark.parametrize("size", [(3000, 4000), (4000, 3000), (1080, 1920), (1000, 4000), (360, 480), (30, 200)])
def test_photographs_and_small_images_are_seen_whole(size: Size) -> None:
    assert plan_tiles(size, BUCKETS, "auto", max_tiles=192) is None


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (10, 20_000), (40, 1_000_000), (1, 40_000_000)])
def test_extreme_images_are_never_rejected_by_auto(size: Size) -> None:
    for max_tiles in (1, 2, 16, 192):
        plan = plan_tiles(size, BUCKETS, "auto", max_tiles)
        assert plan is None or (1 < plan.count <= min(max_tiles, AUTO_MAX_TILES) and min(plan.content) >= 1)


@pytest.mark.parametrize(("size", "content"), [((3000, 4000), (481, 641)), ((1000, 8000), (481, 3848))])
def test_height_is_between_whole_and_native(size: Size, content: Size) -> None:
    plan = plan_tiles(size, BUCKETS, "height", max_tiles=192)
    assert plan is not None
    assert plan.content == content
    assert 1 < plan.count < native(size, BUCKETS).count


@pytest.mark.parametrize("size", [(100, 2000), (2000, 100)])
def test_height_does_not_enlarge(size: Size) -> None:
    assert shorter_side(size, BUCKETS).content == size


def test_a_plan_that_exceeds_the_limit_says_what_fits() -> None:
    with pytest.raises(
        ImageTooLarge, match=r"limit 40 .*[uU]se tile=height \(3 tiles\), scale the image down to"
    ) as info:
        plan_tiles((3000, 4000), BUCKETS, "true", max_tiles=40)
    width, height = (
        int(n.replace(",", "")) for n in str(info.value).split("down to ")[1].split(" pixels")[0].split(" x ")
    )
    smaller = plan_tiles((height, width), BUCKETS, "true", max_tiles=40)
    assert smaller is not None
    assert smaller.count <= 40


def test_the_advice_leaves_out_what_does_not_fit_either() -> None:
    assert native((3000, 4000), BUCKETS).advice(2).startswith("Scale the image down to")
    assert native((3000, 4000), BUCKETS).advice(1) == "Remove tile=true."


def test_a_panorama_of_a_file_is_one_map_of_its_own_size() -> None:
    """Red on the left, green on the right: in place after scaling down, tiling and scaling up."""
    pixels = np.zeros((500, 4000, 3), dtype=np.uint8)
    pixels[:, :1500, 0], pixels[:, 1500:, 1] = 255, 255
    for data in (pixels, encoded(pixels), encoded(pixels, "JPEG")):
        _, model_input = open_image(data, BUCKETS, ImageLimits(10**8, 192), tile="auto")
        assert model_input.count > 1
        assert model_input.input_size == (289, 2312)
        ids = model_input.assemble_ids(
            [(model_input.tensor(i)[..., 1] > 127).astype(np.uint8) for i in range(model_input.count)]
        )
        assert ids.shape == (500, 4000)
        edge = ids.argmax(axis=1)
        assert (np.abs(edge - 1500) <= 1).all()
