import asyncio
import time

import numpy as np
import pytest

from service.errors import ImageTooLarge
from service.inference.tile_deadline import TileDeadline
from service.types import UInt8Array
from tests.support.fake_engine import FakeEngine, encoded, serving


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def told_after(count: int, each_s: float, timeout_s: float, at_once: int = 1) -> int | None:
    """After how many tiles it is told that there are too many; None when it never is."""
    clock = Clock()
    pace = TileDeadline(count, clock.now + timeout_s, at_once, clock)
    for done in range(1, count + 1):
        clock.now += each_s
        try:
            pace.tile_done()
        except ImageTooLarge:
            return done
    return None


@pytest.mark.parametrize(
    ("count", "each_s", "timeout_s", "after"),
    [(81, 1.0, 30.0, 4), (81, 0.1, 30.0, None), (81, 0.37, 30.0, None), (81, 0.45, 30.0, 15), (81, 0.39, 30.0, 39),
     (9, 1.0, 30.0, None), (9, 10.0, 90.0, None), (9, 10.0, 50.0, 4)],
)  # fmt: skip
def test_the_later_it_would_be_the_sooner_it_is_told(
    count: int, each_s: float, timeout_s: float, after: int | None
) -> None:
    assert told_after(count, each_s, timeout_s) == after


def test_the_first_batches_say_nothing_yet() -> None:
    assert told_after(192, 1.0, 30.0, at_once=16) == 32


def test_a_slow_start_is_forgiven() -> None:
    clock = Clock()
    pace = TileDeadline(81, clock.now + 30.0, clock=clock)
    clock.now += 2.0  # another picture had the engine
    for _ in range(81):
        clock.now += 0.1
        pace.tile_done()


async def test_a_picture_that_would_take_too_long_is_told_so_and_what_helps() -> None:
    def slow(batch: UInt8Array) -> None:
        time.sleep(0.02 * len(batch))

    engine = FakeEngine(max_batch=1, before=slow)
    large, small = (encoded(np.zeros((*size, 3), dtype=np.uint8)) for size in ((160, 240), (16, 40)))
    async with serving(engine, max_tiles=10_000) as (client, _):
        hurry = {"X-Request-Timeout-Ms": "1500"}
        late, meanwhile = await asyncio.gather(
            client.post("/segment?tile=true", content=large, headers=hurry),
            client.post("/segment?tile=true", content=small),
        )
        computed = len(engine.batches)
        longer = await client.post("/segment?tile=true&masks=none", content=large)
    assert (late.status_code, late.json()["type"]) == (413, "urn:alignseg:problem:image-too-large")
    for told in ("the picture takes 240 tiles; the first 4 took", "X-Request-Timeout-Ms", "leave tile=true out"):
        assert told in late.json()["detail"]
    assert computed < 60  # not all 240 in vain
    assert meanwhile.status_code == 200
    assert longer.json()["tiles"] == 240
