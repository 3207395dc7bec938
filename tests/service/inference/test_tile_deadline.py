import asyncio
import time

import numpy as np
import pytest

from service.errors import ImageTooLarge
from service.imaging.tile_plan import native
from service.inference.tile_deadline import TileDeadline
from service.types import UInt8Array
from tests.support.fake_engine import FakeEngine, encoded, serving


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def rejected_after(count: int, tile_s: float, timeout_s: float, concurrent: int = 1) -> int | None:
    """After how many tiles the image is rejected; None if it is not."""
    clock = Clock()
    tile_deadline = TileDeadline(count, clock.now + timeout_s, concurrent, clock)
    for done in range(1, count + 1):
        clock.now += tile_s
        try:
            tile_deadline.tile_done()
        except ImageTooLarge:
            return done
    return None


@pytest.mark.parametrize(
    ("count", "tile_s", "timeout_s", "after"),
    [(81, 1.0, 30.0, 4), (81, 0.1, 30.0, None), (81, 0.37, 30.0, None), (81, 0.45, 30.0, 15), (81, 0.39, 30.0, 39),
     (9, 1.0, 30.0, None), (9, 10.0, 90.0, None), (9, 10.0, 50.0, 4)],
)  # fmt: skip
def test_the_later_an_image_would_be_the_sooner_it_is_rejected(
    count: int, tile_s: float, timeout_s: float, after: int | None
) -> None:
    assert rejected_after(count, tile_s, timeout_s) == after


def test_the_first_batches_are_no_basis_for_an_estimate() -> None:
    assert rejected_after(192, 1.0, 30.0, concurrent=16) == 32


def test_a_slow_first_tile_does_not_reject_the_image() -> None:
    clock = Clock()
    tile_deadline = TileDeadline(81, clock.now + 30.0, clock=clock)
    clock.now += 2.0  # the engine computed another image
    for _ in range(81):
        clock.now += 0.1
        tile_deadline.tile_done()


async def test_an_image_with_too_many_tiles_is_rejected_with_advice() -> None:
    def slow(batch: UInt8Array) -> None:
        time.sleep(0.02 * len(batch))

    engine = FakeEngine(max_batch=1, before=slow)
    large, small = (encoded(np.zeros((*size, 3), dtype=np.uint8)) for size in ((160, 240), (16, 40)))
    async with serving(engine, max_tiles=10_000) as (client, _):
        headers = {"X-Request-Timeout-Ms": "1500"}
        late, meanwhile = await asyncio.gather(
            client.post("/segment?tile=true", content=large, headers=headers),
            client.post("/segment?tile=true", content=small),
        )
        computed = len(engine.batches)
        longer = await client.post("/segment?tile=true&masks=none", content=large)
    assert (late.status_code, late.json()["type"]) == (413, "urn:alignseg:problem:image-too-large")
    for text in (
        "The image has 240 tiles: 4 took",
        "X-Request-Timeout-Ms",
        "remove tile=true",
        "tiles are done in time",
    ):
        assert text in late.json()["detail"]
    assert computed < 60  # the rest of the 240 was not computed
    assert meanwhile.status_code == 200
    assert longer.json()["tiles"] == 240


def detail_after(tile_s: float, timeout_s: float, max_s: float) -> str:
    """The error of an image of 144 tiles."""
    clock = Clock()
    advice = native((3000, 4000), [(369, 481), (481, 369)]).advice
    tile_deadline = TileDeadline(144, clock.now + timeout_s, 1, clock, advice=advice, max_s=max_s)
    with pytest.raises(ImageTooLarge) as raised:
        for _ in range(144):
            clock.now += tile_s
            tile_deadline.tile_done()
    return str(raised.value)


def test_a_longer_timeout_is_advised_only_where_it_suffices() -> None:
    assert detail_after(0.1, timeout_s=5, max_s=30).endswith("Or set X-Request-Timeout-Ms to 18000.")
    assert "X-Request-Timeout-Ms" not in detail_after(0.3, timeout_s=30, max_s=30)
    assert "X-Request-Timeout-Ms" not in detail_after(0.3, timeout_s=5, max_s=30)


def test_the_advised_size_is_done_in_time() -> None:
    detail = detail_after(0.3, timeout_s=30, max_s=30)
    assert "Use tile=height (3 tiles), scale the image down to" in detail
    width, height = (int(n.replace(",", "")) for n in detail.split("down to ")[1].split(" pixels")[0].split(" x "))
    assert 10 < native((height, width), [(369, 481), (481, 369)]).count * 0.3 < 30
