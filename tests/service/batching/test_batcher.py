import asyncio
import gc
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from service.batching.batcher import Batcher, _resolve
from service.batching.fault_isolation import FaultIsolatingEngine
from service.batching.queue import QueuedImage
from service.errors import DeadlineExceeded, DeviceLost, EngineError, EngineOutOfMemory, NotReady
from service.types import Inference, UInt8Array
from tests.support.fake_engine import FakeEngine, Gate


def image(value: int = 0, shape: tuple[int, int] = (2, 3)) -> UInt8Array:
    return np.full((*shape, 3), value, dtype=np.uint8)


@asynccontextmanager
async def running(engine: FakeEngine, delay_s: float = 0.0) -> AsyncGenerator[Batcher, None]:
    batcher = Batcher([engine], max_queue_delay_s=delay_s)
    try:
        yield batcher
    finally:
        if isinstance(engine.before, Gate):
            engine.before.opened.set()
        assert await batcher.drain(10)
        assert engine.closed


@asynccontextmanager
async def blocked(max_batch: int = 4) -> AsyncGenerator[tuple[FakeEngine, Gate, Batcher, asyncio.Task[object]], None]:
    """A batcher whose engine is busy with a first image until the gate opens."""
    gate = Gate()
    engine = FakeEngine(max_batch, gate)
    async with running(engine) as batcher:
        first = asyncio.create_task(batcher.submit(image()))
        await asyncio.to_thread(gate.entered.wait, 120)
        yield engine, gate, batcher, first


async def submit_all(batcher: Batcher, *images: UInt8Array) -> list[asyncio.Task[object]]:
    tasks = [asyncio.create_task(batcher.submit(pixels)) for pixels in images]
    await asyncio.sleep(0)
    return tasks


def raising(error: Exception, when: Callable[[UInt8Array], bool]) -> Callable[[UInt8Array], None]:
    def before(batch: UInt8Array) -> None:
        if when(batch):
            raise error

    return before


async def test_each_image_gets_its_own_result() -> None:
    async with running(FakeEngine()) as batcher:
        results = await asyncio.gather(*(batcher.submit(image(i)) for i in range(30)))
    assert [int(r.ids[0, 0]) for r in results] == [i % 4 for i in range(30)]
    assert all(r.ids.shape == (2, 3) and r.queued_s >= 0 and r.infer_s >= 0 for r in results)


async def test_a_free_engine_takes_what_is_queued() -> None:
    async with blocked() as (engine, gate, batcher, first):
        tasks = await submit_all(batcher, *[image(i) for i in range(6)])
        gate.opened.set()
        await asyncio.gather(first, *tasks)
    assert [n for n, *_ in engine.batches] == [1, 4, 2]


async def test_a_batch_has_one_shape_and_the_oldest_image_comes_first() -> None:
    a, b = (2, 3), (3, 2)
    async with blocked() as (engine, gate, batcher, first):
        tasks = await submit_all(batcher, *[image(0, s) for s in (b, a, a, a, a, b, a)])
        gate.opened.set()
        await asyncio.gather(first, *tasks)
    assert [shape[:3] for shape in engine.batches[1:]] == [(2, *b), (4, *a), (1, *a)]


async def test_images_with_and_without_confidence_share_no_batch() -> None:
    async with blocked() as (engine, gate, batcher, first):
        tasks = [asyncio.create_task(batcher.submit(image(i), with_confidence=i % 2 == 1)) for i in range(4)]
        await asyncio.sleep(0)
        gate.opened.set()
        await first
        results = await asyncio.gather(*tasks)
    assert [n for n, *_ in engine.batches[1:]] == [2, 2]
    assert [None if r.confidence is None else int(r.confidence[0, 0]) for r in results] == [None, 1, None, 3]


async def test_missing_confidence_is_an_engine_error() -> None:
    engine = FakeEngine()
    engine.infer = lambda batch, with_confidence: Inference(batch[..., 0])  # type: ignore[method-assign]
    async with running(engine) as batcher:
        assert (await batcher.submit(image())).confidence is None
        with pytest.raises(EngineError, match="returned None, expected uint8"):
            await batcher.submit(image(), with_confidence=True)


async def test_the_delay_waits_for_more_images_but_no_longer() -> None:
    engine = FakeEngine(max_batch=3)
    async with running(engine, delay_s=0.2) as batcher:
        began = time.monotonic()
        pair = await submit_all(batcher, image(), image())
        await asyncio.gather(*pair)
        assert time.monotonic() - began >= 0.19
        full = await submit_all(batcher, image(), image(), image())
        results = await asyncio.gather(*full)
        assert all(r.queued_s < 0.19 for r in results)  # a full batch does not wait
    assert [n for n, *_ in engine.batches] == [2, 3]


async def test_a_full_batch_comes_before_images_that_wait_for_more() -> None:
    engine = FakeEngine(max_batch=2)
    async with running(engine, delay_s=0.2) as batcher:
        tasks = await submit_all(batcher, image(0, (3, 2)), image(), image())
        await asyncio.gather(*tasks)
    assert [shape[:3] for shape in engine.batches] == [(2, 2, 3), (1, 3, 2)]


async def test_expired_images_are_not_computed() -> None:
    async with blocked() as (engine, gate, batcher, first):
        late = asyncio.create_task(batcher.submit(image(), deadline=time.monotonic() + 0.01))
        await asyncio.sleep(0.02)
        gate.opened.set()
        with pytest.raises(DeadlineExceeded):
            await late
        await first
    assert len(engine.batches) == 1


async def test_a_cancelled_image_leaves_the_queue() -> None:
    async with blocked() as (engine, gate, batcher, first):
        cancelled, kept = await submit_all(batcher, image(1), image(2))
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        gate.opened.set()
        await asyncio.gather(first, kept)
    assert [n for n, *_ in engine.batches] == [1, 1]


async def test_a_cancelled_image_in_the_engine_ends_with_the_engine_call() -> None:
    async with blocked() as (_engine, gate, _batcher, first):
        first.cancel()
        await asyncio.sleep(0.02)
        assert not first.done()
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_the_failure_of_a_cancelled_image_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with blocked() as (engine, gate, batcher, first):
        first.cancel()
        await asyncio.sleep(0)
        engine.batches.clear()
        engine.max_batch = 0  # the result below has an unexpected shape
        engine.infer = lambda batch, with_confidence: Inference(batch)  # type: ignore[method-assign]
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        engine.max_batch = 1
        with pytest.raises(EngineError):
            await batcher.submit(image())
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_a_bad_image_fails_alone() -> None:
    async with blocked() as (engine, gate, batcher, first):
        tasks = await submit_all(batcher, *[image(i) for i in (1, 66, 2)])
        engine.before = raising(ValueError("66"), lambda batch: bool((batch == 66).any()))
        gate.opened.set()
        await first
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[1], EngineError)
    assert "66" in str(done[1])
    assert [int(d.ids[0, 0]) for d in (done[0], done[2])] == [1, 2]


async def test_out_of_memory_halves_the_batch() -> None:
    async with blocked(max_batch=8) as (engine, gate, batcher, first):
        tasks = await submit_all(batcher, *[image(i) for i in range(7)])
        engine.before = lambda batch: (gate(batch), raising(EngineOutOfMemory("full"), lambda b: len(b) > 2)(batch))
        gate.opened.set()
        results = await asyncio.gather(*tasks)
        await first
    assert [int(r.ids[0, 0]) for r in results] == [i % 4 for i in range(7)]
    assert [n for n, *_ in engine.batches] == [1, 7, 3, 1, 1, 1, 3, 1, 1, 1, 1]


async def test_out_of_memory_of_a_single_image_is_raised() -> None:
    async with running(FakeEngine(before=raising(MemoryError("x"), lambda batch: True))) as batcher:
        with pytest.raises(EngineOutOfMemory):
            await batcher.submit(image())


async def test_a_lost_engine_fails_all_images_and_accepts_no_more() -> None:
    async with blocked() as (engine, gate, batcher, first):
        tasks = await submit_all(batcher, *[image() for _ in range(6)])
        engine.before = raising(DeviceLost("sticky"), lambda batch: True)
        gate.opened.set()
        await first
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(d, DeviceLost) for d in done)
        assert batcher.lost is not None
        with pytest.raises(DeviceLost, match="sticky"):
            await batcher.submit(image())
    assert len(engine.batches) == 2


@pytest.mark.parametrize(
    "wrong",
    [lambda b: Inference(b[..., 0][:, :1]), lambda b: Inference(b[..., 0].astype(np.int64)), lambda b: None],
    ids=["shape", "dtype", "nothing"],
)
async def test_an_output_of_the_wrong_shape_or_dtype_is_an_engine_error(
    wrong: Callable[[UInt8Array], Inference],
) -> None:
    engine = FakeEngine()
    engine.infer = lambda batch, with_confidence: wrong(batch)  # type: ignore[method-assign]
    async with running(engine) as batcher:
        with pytest.raises(EngineError):
            await batcher.submit(image())
        assert batcher.last_error is not None
        del engine.infer
        await batcher.submit(image())
        assert batcher.last_error is None


async def test_drain_completes_all_accepted_images() -> None:
    async with blocked() as (_engine, gate, batcher, first):
        tasks = await submit_all(batcher, *[image(i) for i in range(9)])
        draining = asyncio.create_task(batcher.drain(10))
        await asyncio.sleep(0)
        with pytest.raises(NotReady):
            await batcher.submit(image())
        gate.opened.set()
        assert await draining
        assert all(t.done() and not t.exception() for t in (first, *tasks))


async def test_drain_returns_false_when_it_takes_too_long() -> None:
    async with blocked() as (_engine, _gate, batcher, first):
        assert not await batcher.drain(0.01)
        first.cancel()


async def test_many_cancellations_lose_no_image() -> None:
    rng = np.random.default_rng(3)
    engine = FakeEngine(before=lambda batch: time.sleep(0.0005))
    async with running(engine) as batcher:
        tasks = await submit_all(batcher, *[image(i % 256, (2, 3 + i % 2)) for i in range(300)])
        for task in rng.permutation(np.array(tasks, dtype=object))[:100]:
            await asyncio.sleep(0)
            task.cancel()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 120)
    for i, outcome in enumerate(done):
        assert isinstance(outcome, asyncio.CancelledError) or int(outcome.ids[0, 0]) == i % 256 % 4
    assert sum(isinstance(d, asyncio.CancelledError) for d in done) <= 100


async def test_a_result_that_is_already_set_does_not_prevent_the_others() -> None:
    loop = asyncio.get_running_loop()
    batch = [QueuedImage(image(), False, None, 0.0, 1.0, loop.create_future()) for _ in range(3)]
    batch[0].result.cancel()
    batch[1].result.set_exception(NotReady("set before"))
    _resolve(batch, [EngineError("for all")] * 3)
    with pytest.raises(EngineError, match="for all"):
        await asyncio.wait_for(batch[2].result, 120)
    assert batch[0].result.cancelled()
    assert isinstance(batch[1].result.exception(), NotReady)


async def test_a_failure_outside_the_engine_fails_the_batch_and_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> object:
        raise ValueError("a bug")

    monkeypatch.setattr(FaultIsolatingEngine, "infer", broken)
    batcher = Batcher([FakeEngine()])
    with pytest.raises(DeviceLost, match="a bug"):
        async with asyncio.timeout(5):
            await batcher.submit(image())
    assert batcher.lost is not None
    assert await batcher.drain(5)


@pytest.mark.parametrize("fails", [False, True], ids=["engine works", "engine fails"])
async def test_a_metric_that_fails_changes_no_result_and_no_health(fails: bool) -> None:
    def broken(size: int, error: EngineError | None) -> None:
        raise ValueError("the counter is broken")

    batcher = Batcher([FakeEngine(before=raising(EngineError("bad"), lambda batch: fails))], on_call=broken)
    for _ in range(3):
        async with asyncio.timeout(5):
            if fails:
                with pytest.raises(EngineError, match="bad"):
                    await batcher.submit(image())
            else:
                await batcher.submit(image())
    assert batcher.lost is None
    assert batcher.healthy == [0]
    assert await batcher.drain(5)


@asynccontextmanager
async def in_front_of(*engines: FakeEngine) -> AsyncGenerator[Batcher, None]:
    batcher = Batcher(engines)
    try:
        yield batcher
    finally:
        assert await batcher.drain(10)
        assert all(engine.closed for engine in engines)


async def test_two_engines_compute_at_the_same_time() -> None:
    both = threading.Barrier(2)  # neither passes before the other is in a call
    engines = [FakeEngine(1, lambda batch: both.wait(120)) for _ in range(2)]
    async with in_front_of(*engines) as batcher:
        results = await asyncio.gather(*(batcher.submit(image(i)) for i in range(20)))
    assert [int(r.ids[0, 0]) for r in results] == [i % 4 for i in range(20)]
    assert [len(engine.batches) for engine in engines] == [10, 10]


async def test_an_engine_can_be_chosen() -> None:
    engines = [FakeEngine(), FakeEngine()]
    async with in_front_of(*engines) as batcher:
        await asyncio.gather(*(batcher.submit(image(), worker=1) for _ in range(5)))
        assert not engines[0].batches
        await batcher.submit(image(), worker=0)
    assert len(engines[0].batches) == 1


async def test_the_batch_of_a_lost_engine_is_computed_by_another() -> None:
    good, bad = FakeEngine(2), FakeEngine(2, raising(DeviceLost("gone"), lambda batch: True))
    async with in_front_of(bad, good) as batcher:
        results = await asyncio.gather(*(batcher.submit(image(i)) for i in range(40)))
        assert [int(r.ids[0, 0]) for r in results] == [i % 4 for i in range(40)]
        with pytest.raises(DeviceLost, match="gone"):
            await batcher.submit(image(), worker=0)
        assert batcher.healthy == [1]
        assert batcher.lost is None
        assert batcher.last_error is None
        assert (await batcher.submit(image())).batch_size == 1


async def test_when_all_engines_are_lost_all_images_fail() -> None:
    engines = [FakeEngine(1, raising(DeviceLost("gone"), lambda batch: True)) for _ in range(3)]
    async with in_front_of(*engines) as batcher:
        results = await asyncio.gather(*(batcher.submit(image(i)) for i in range(20)), return_exceptions=True)
        assert all(isinstance(result, DeviceLost) for result in results)
        assert batcher.healthy == []
        assert batcher.lost is not None
        with pytest.raises(DeviceLost, match="gone"):
            await batcher.submit(image())


async def test_busy_since_is_the_start_of_the_longest_call() -> None:
    gate = Gate()
    async with in_front_of(FakeEngine(before=gate), FakeEngine()) as batcher:
        hung = asyncio.create_task(batcher.submit(image(), worker=0))
        await asyncio.to_thread(gate.entered.wait, 120)
        await batcher.submit(image())  # the other engine works
        assert batcher.busy_since is not None
        assert batcher.busy_since <= time.monotonic()
        gate.opened.set()
        await hung
    assert batcher.busy_since is None
