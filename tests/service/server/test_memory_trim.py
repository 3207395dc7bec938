import asyncio
import threading

from service.admission.pixel_budget import LARGE_PIXELS, PixelBudget
from service.server.memory_trim import BUSY_INTERVAL_S, IDLE_INTERVAL_S, MemoryTrimmer


class Trims:
    """A trimmer with a clock and a count of its trims, which run in another thread."""

    def __init__(self) -> None:
        self.now, self.threads = 100.0, list[int]()
        self.pixels = PixelBudget(10**9, lambda: 1.0)
        self.trimmer = MemoryTrimmer(lambda: self.threads.append(threading.get_ident()), lambda: self.now)

    def image(self, pixels: int) -> None:
        with self.pixels.reservation() as reserve:
            reserve(pixels)

    async def tick(self, after_s: float) -> int:
        self.now += after_s
        self.trimmer.on_tick(self.pixels)
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)
        await asyncio.sleep(0.01)
        return len(self.threads)


async def test_a_large_image_is_followed_by_one_trim_off_the_event_loop() -> None:
    trims = Trims()
    assert await trims.tick(100) == 0
    trims.image(12 * LARGE_PIXELS)
    assert [await trims.tick(IDLE_INTERVAL_S) for _ in range(5)] == [1] * 5
    assert trims.threads[0] != threading.get_ident()


async def test_small_images_never_trim() -> None:
    trims = Trims()
    for _ in range(50):
        trims.image(LARGE_PIXELS - 1)
    assert await trims.tick(1000) == 0


async def test_the_rate_is_bounded_when_idle_and_lower_under_load() -> None:
    trims = Trims()
    for _ in range(100):  # 10 s at ten ticks a second
        trims.image(LARGE_PIXELS)
        await trims.tick(0.1)
    assert 9 <= len(trims.threads) <= 10 / IDLE_INTERVAL_S
    busy = Trims()
    with busy.pixels.reservation() as reserve:
        reserve(LARGE_PIXELS)
        for _ in range(200):
            busy.image(LARGE_PIXELS)
            await busy.tick(0.1)
    assert 1 <= len(busy.threads) <= 20 / BUSY_INTERVAL_S


async def test_a_slow_trim_is_not_started_twice() -> None:
    gate, started = threading.Event(), list[int]()

    def slow() -> None:
        started.append(1)
        gate.wait(120)

    trims = Trims()
    trims.trimmer = MemoryTrimmer(slow, lambda: trims.now)
    for _ in range(3):
        trims.image(LARGE_PIXELS)
        trims.now += BUSY_INTERVAL_S
        trims.trimmer.on_tick(trims.pixels)
    gate.set()
    await asyncio.sleep(0.05)
    assert len(started) == 1
