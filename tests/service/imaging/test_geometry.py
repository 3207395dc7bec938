"""A known geometry through decode, resize, pad, engine and back: nothing moves by half a pixel.

The fake engine classifies each pixel of its input by itself, so what comes back can only differ from what was drawn
by the steps in between. An edge drawn at x of n pixels must come back within half a pixel of the bucket's grid, which
is the best that sampling can do, and on average exactly where it was.
"""

import numpy as np
import pytest

from service.imaging.letterbox import fit
from service.rendering import media_types
from service.types import Inference, UInt8Array
from tests.support.fake_engine import BUCKETS, FakeEngine, encoded, opened, serving

SIZES = [
    (16, 24), (32, 48), (33, 47), (160, 240), (90, 160), (160, 90), (97, 211), (10, 13), (7, 200), (200, 9), (301, 299),
]  # fmt: skip


class Threshold(FakeEngine):
    """Class 1 where red is above the middle."""

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        self.batches.append(batch.shape)
        return Inference((batch[..., 0] > 127).astype(np.uint8))


async def edge_of(client: object, size: tuple[int, int], at: int, query: str = "") -> float:
    """Draw an edge before column `at`, and find it in the response."""
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    pixels[:, at:] = 255
    response = await client.post(f"/segment{query}", content=encoded(pixels), headers={"Accept": media_types.PNG})  # type: ignore[attr-defined]
    mask = np.asarray(opened(response.content))
    assert mask.shape == size
    assert (mask == mask[:1]).all()  # a straight edge stays straight, up to the corners
    assert (np.diff(mask[0].astype(int)) >= 0).all()
    return float((mask[0] == 0).sum())


@pytest.mark.parametrize("size", SIZES)
async def test_edges_come_back_where_they_were(size: tuple[int, int]) -> None:
    width = size[1]
    content = max((fit(size, bucket) for bucket in BUCKETS), key=lambda s: s[0] * s[1])
    step = max(1.0, width / content[1])  # of the bucket's grid, in pixels of the image
    async with serving(Threshold()) as (client, _):
        positions = np.unique(np.linspace(step, width - step, 25).round().astype(int))
        errors = np.array([await edge_of(client, size, int(at)) - at for at in positions])
    assert np.abs(errors).max() <= step / 2 + 0.5
    assert abs(errors.mean()) <= 0.25 * step


@pytest.mark.parametrize("scale", [1, 2, 3, 5, 8])
async def test_integer_scales_are_exact(scale: int) -> None:
    """At an integer scale edges on the bucket's grid come back exactly, in both directions.

    Above twice the bucket's scale corners are rounded: within half a pixel of the bucket's grid.
    """
    ids = np.random.default_rng(scale).integers(0, 2, (16, 24), dtype=np.uint8)
    ids = np.kron(ids[::4, ::4], np.ones((4, 4), dtype=np.uint8))
    large = ids.repeat(scale, axis=0).repeat(scale, axis=1)
    pixels = np.repeat(large[..., None] * np.uint8(255), 3, axis=2)
    async with serving(Threshold()) as (client, _):
        for image, expected in ((pixels, large), (pixels.transpose(1, 0, 2), large.T)):
            response = await client.post(
                "/segment", content=encoded(np.ascontiguousarray(image)), headers={"Accept": media_types.PNG}
            )
            mask = np.asarray(opened(response.content))
            # Away from corners, a pixel's neighbours at that distance have at most one edge: along rows or columns.
            reach = -(-scale // 2) if scale > 2 else 0
            near = np.pad(expected, reach, mode="edge")
            height, width = expected.shape
            corners = [near[y : y + height, x : x + width] for y in (0, 2 * reach) for x in (0, 2 * reach)]
            straight = (corners[0] ^ corners[1] ^ corners[2] ^ corners[3]) == 0
            np.testing.assert_array_equal(mask[straight], expected[straight])
            if scale <= 2:
                assert straight.all()
            assert np.mean(straight) > 0.9


@pytest.mark.parametrize("size", [(40, 90), (97, 211), (17, 25), (64, 16)])
async def test_tiles_are_exact_at_any_size(size: tuple[int, int]) -> None:
    ids = np.random.default_rng(1).integers(0, 2, size, dtype=np.uint8)
    pixels = np.repeat(ids[..., None] * np.uint8(255), 3, axis=2)
    async with serving(Threshold(), max_tiles=200) as (client, _):
        response = await client.post("/segment?tile=true", content=encoded(pixels), headers={"Accept": media_types.PNG})
    np.testing.assert_array_equal(np.asarray(opened(response.content)), ids)
