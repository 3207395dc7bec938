import asyncio
import gc
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from service.batching.batcher import Batcher, _settle
from service.batching.queue import QueuedImage
from service.errors import DeadlineExceeded, DeviceLost, EngineError, EngineOutOfMemory, NotReady
from service.types import Inference, UInt8Array
from tests.support.fake_engine import FakeEngine, Gate


def picture(value: int = 0, shape: tuple[int, int] = (2, 3)) -> UInt8Array:
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
    """A batcher whose engine is busy with a first picture until the gate opens."""
    gate = Gate()
    engine = FakeEngine(max_batch, gate)
    async with running(engine) as batcher:
        first = asyncio.create_task(batcher.submit(picture()))
        await asyncio.to_thread(gate.entered.wait, 10)
        yield engine, gate, batcher, first


async def submit_all(batcher: Batcher, *pictures: UInt8Array) -> list[asyncio.Task[object]]:
    tasks = [asyncio.create_task(batcher.submit(p)) for p in pictures]
    await asyncio.sleep(0)
    return tasks


def raising(error: Exception, when: Callable[[UInt8Array], bool]) -> Callable[[UInt8Array], None]:
    def before(batch: UInt8Array) -> None:
        if when(batch):
            raise error

    return before


async def test_each_picture_gets_its_own_answer() -> None:
    async with running(FakeEngine()) as batcher:
        answers = await asyncio.gather(*(batcher.submit(picture(i)) for i in range(30)))
    assert [int(a.ids[0, 0]) for a in answers] == [i % 4 for i in range(30)]
    assert all(a.ids.shape == (2, 3) and a.queued_s >= 0 and a.infer_s >= 0 for a in answers)


async def test_a_free_engine_takes_what_waits() -> None:
    async with blocked() as (engine, gate, batcher, first):
        tasks = await submit_all(batcher, *[picture(i) for i in range(6)])
        gate.opened.set()
        await asyncio.gather(first, *tasks)
    assert [n for n, *_ in engine.batches] == [1, 4, 2]


async def test_only_one_shape_shares_a_batch_and_the_oldest_goes_first() -> None:
    a, b = (2, 3), (3, 2)
    async with blocked() as (engine, gate, batcher, first):
        tasks = await submit_all(batcher, *[picture(0, s) for s in (b, a, a, a, a, b, a)])
        gate.opened.set()
        await asyncio.gather(first, *tasks)
    assert [shape[:3] for shape in engine.batches[1:]] == [(2, *b), (4, *a), (1, *a)]


async def test_confidence_shares_no_batch_with_pictures_that_do_without() -> None:
    async with blocked() as (engine, gate, batcher, first):
        asked = [asyncio.create_task(batcher.submit(picture(i), with_confidence=i % 2 == 1)) for i in range(4)]
        await asyncio.sleep(0)
        gate.opened.set()
        await first
        answers = await asyncio.gather(*asked)
    assert [n for n, *_ in engine.batches[1:]] == [2, 2]
    assert [None if a.confidence is None else int(a.confidence[0, 0]) for a in answers] == [None, 1, None, 3]


async def test_confidence_asked_for_and_not_given_is_an_engine_error() -> None:
    engine = FakeEngine()
    engine.infer = lambda batch, with_confidence: Inference(batch[..., 0])  # type: ignore[method-assign]
    async with running(engine) as batcher:
        assert (await batcher.submit(picture())).confidence is None
        with pytest.raises(EngineError, match="gave nothing; expected uint8"):
            await batcher.submit(picture(), with_confidence=True)


async def test_delay_waits_for_company_but_not_for_long() -> None:
    engine = FakeEngine(max_batch=3)
    async with running(engine, delay_s=0.2) as batcher:
        began = time.monotonic()
        pair = await submit_all(batcher, picture(), picture())
        await asyncio.gather(*pair)
        assert time.monotonic() - began >= 0.19
        full = await submit_all(batcher, picture(), picture(), picture())
        answers = await asyncio.gather(*full)
        assert all(a.queued_s < 0.19 for a in answers)  # full: no reason to wait
    assert [n for n, *_ in engine.batches] == [2, 3]


async def test_a_full_bucket_overtakes_one_that_waits_for_company() -> None:
    engine = FakeEngine(max_batch=2)
    async with running(engine, delay_s=0.2) as batcher:
        tasks = await submit_all(batcher, picture(0, (3, 2)), picture(), picture())
        await asyncio.gather(*tasks)
    assert [shape[:3] for shape in engine.batches] == [(2, 2, 3), (1, 3, 2)]


async def test_expired_work_is_not_computed() -> None:
    async with blocked() as (engine, gate, batcher, first):
        late = asyncio.create_task(batcher.submit(picture(), deadline=time.monotonic() + 0.01))
        await asyncio.sleep(0.02)
        gate.opened.set()
        with pytest.raises(DeadlineExceeded):
            await late
        await first
    assert len(engine.batches) == 1


async def test_cancelled_work_leaves_the_queue() -> None:
    async with blocked() as (engine, gate, batcher, first):
        gone, stays = await submit_all(batcher, picture(1), picture(2))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        gate.opened.set()
        await asyncio.gather(first, stays)
    assert [n for n, *_ in engine.batches] == [1, 1]


async def test_cancelled_work_that_the_engine_has_ends_with_the_engine() -> None:
    async with blocked() as (_engine, gate, _batcher, first):
        first.cancel()
        await asyncio.sleep(0.02)
        assert not first.done()
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_a_failure_that_nobody_waits_for_is_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    async with blocked() as (engine, gate, batcher, first):
        first.cancel()
        await asyncio.sleep(0)
        engine.batches.clear()
        engine.max_batch = 0  # the result below has a shape nobody expects
        engine.infer = lambda batch, with_confidence: Inference(batch)  # type: ignore[method-assign]
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        engine.max_batch = 1
        with pytest.raises(EngineError):
            await batcher.submit(picture())
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_one_poisonous_picture_fails_alone() -> None:
    async with blocked() as (engine, gate, batcher, first):
        tasks = await submit_all(batcher, *[picture(i) for i in (1, 66, 2)])
        engine.before = raising(ValueError("66"), lambda batch: bool((batch == 66).any()))
        gate.opened.set()
        await first
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[1], EngineError)
    assert "66" in str(done[1])
    assert [int(d.ids[0, 0]) for d in (done[0], done[2])] == [1, 2]


async def test_out_of_memory_halves_the_batch() -> None:
    async with blocked(max_batch=8) as (engine, gate, batcher, first):
        tasks = await submit_all(batcher, *[picture(i) for i in range(7)])
        engine.before = lambda batch: (gate(batch), raising(EngineOutOfMemory("full"), lambda b: len(b) > 2)(batch))
        gate.opened.set()
        answers = await asyncio.gather(*tasks)
        await first
    assert [int(a.ids[0, 0]) for a in answers] == [i % 4 for i in range(7)]
    assert [n for n, *_ in engine.batches] == [1, 7, 3, 1, 1, 1, 3, 1, 1, 1, 1]


async def test_out_of_memory_on_one_picture_is_told() -> None:
    async with running(FakeEngine(before=raising(MemoryError("x"), lambda batch: True))) as batcher:
        with pytest.raises(EngineOutOfMemory):
            await batcher.submit(picture())


async def test_a_lost_engine_answers_all_and_takes_no_more() -> None:
    async with blocked() as (engine, gate, batcher, first):
        tasks = await submit_all(batcher, *[picture() for _ in range(6)])
        engine.before = raising(DeviceLost("sticky"), lambda batch: True)
        gate.opened.set()
        await first
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(d, DeviceLost) for d in done)
        assert batcher.lost is not None
        with pytest.raises(DeviceLost, match="sticky"):
            await batcher.submit(picture())
    assert len(engine.batches) == 2


@pytest.mark.parametrize(
    "wrong",
    [lambda b: Inference(b[..., 0][:, :1]), lambda b: Inference(b[..., 0].astype(np.int64)), lambda b: None],
    ids=["shape", "dtype", "nothing"],
)
async def test_an_answer_of_the_wrong_form_is_an_engine_error(wrong: Callable[[UInt8Array], Inference]) -> None:
    engine = FakeEngine()
    engine.infer = lambda batch, with_confidence: wrong(batch)  # type: ignore[method-assign]
    async with running(engine) as batcher:
        with pytest.raises(EngineError):
            await batcher.submit(picture())
        assert batcher.last_error is not None
        del engine.infer
        await batcher.submit(picture())
        assert batcher.last_error is None


async def test_drain_answers_all_that_was_accepted() -> None:
    async with blocked() as (_engine, gate, batcher, first):
        tasks = await submit_all(batcher, *[picture(i) for i in range(9)])
        draining = asyncio.create_task(batcher.drain(10))
        await asyncio.sleep(0)
        with pytest.raises(NotReady):
            await batcher.submit(picture())
        gate.opened.set()
        assert await draining
        assert all(t.done() and not t.exception() for t in (first, *tasks))


async def test_drain_tells_when_it_took_too_long() -> None:
    async with blocked() as (_engine, _gate, batcher, first):
        assert not await batcher.drain(0.01)
        first.cancel()


async def test_a_storm_of_cancellations_loses_nobody() -> None:
    rng = np.random.default_rng(3)
    engine = FakeEngine(before=lambda batch: time.sleep(0.0005))
    async with running(engine) as batcher:
        tasks = await submit_all(batcher, *[picture(i % 256, (2, 3 + i % 2)) for i in range(300)])
        for task in rng.permutation(np.array(tasks, dtype=object))[:100]:
            await asyncio.sleep(0)
            task.cancel()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    for i, outcome in enumerate(done):
        assert isinstance(outcome, asyncio.CancelledError) or int(outcome.ids[0, 0]) == i % 256 % 4
    assert sum(isinstance(d, asyncio.CancelledError) for d in done) <= 100


async def test_an_answer_that_is_set_already_keeps_no_neighbour_from_its_own() -> None:
    loop = asyncio.get_running_loop()
    batch = [QueuedImage(picture(), False, None, 0.0, 1.0, loop.create_future()) for _ in range(3)]
    batch[0].answer.cancel()
    batch[1].answer.set_exception(NotReady("told before"))
    _settle(batch, [EngineError("for all")] * 3)
    with pytest.raises(EngineError, match="for all"):
        await asyncio.wait_for(batch[2].answer, 5)
    assert batch[0].answer.cancelled()
    assert isinstance(batch[1].answer.exception(), NotReady)


async def test_a_failure_beside_the_engine_answers_the_batch_in_hand() -> None:
    def broken(size: int, error: EngineError | None) -> None:
        raise ValueError("the counter is broken")

    batcher = Batcher([FakeEngine()], on_call=broken)
    with pytest.raises(DeviceLost, match="the counter is broken"):
        async with asyncio.timeout(5):
            await batcher.submit(picture())
    assert batcher.lost is not None
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
    both = threading.Barrier(2)  # neither passes before the other is in a call, too
    engines = [FakeEngine(1, lambda batch: both.wait(10)) for _ in range(2)]
    async with in_front_of(*engines) as batcher:
        answers = await asyncio.gather(*(batcher.submit(picture(i)) for i in range(20)))
    assert [int(a.ids[0, 0]) for a in answers] == [i % 4 for i in range(20)]
    assert [len(engine.batches) for engine in engines] == [10, 10]


async def test_each_engine_can_be_asked_for() -> None:
    engines = [FakeEngine(), FakeEngine()]
    async with in_front_of(*engines) as batcher:
        await asyncio.gather(*(batcher.submit(picture(), worker=1) for _ in range(5)))
        assert not engines[0].batches
        await batcher.submit(picture(), worker=0)
    assert len(engines[0].batches) == 1


async def test_what_a_lost_engine_had_begun_the_others_finish() -> None:
    good, bad = FakeEngine(2), FakeEngine(2, raising(DeviceLost("gone"), lambda batch: True))
    async with in_front_of(bad, good) as batcher:
        answers = await asyncio.gather(*(batcher.submit(picture(i)) for i in range(40)))
        assert [int(a.ids[0, 0]) for a in answers] == [i % 4 for i in range(40)]
        with pytest.raises(DeviceLost, match="gone"):
            await batcher.submit(picture(), worker=0)
        assert batcher.working == [1]
        assert batcher.lost is None
        assert batcher.last_error is None
        assert (await batcher.submit(picture())).batch_size == 1


async def test_when_all_are_lost_everybody_is_told() -> None:
    engines = [FakeEngine(1, raising(DeviceLost("gone"), lambda batch: True)) for _ in range(3)]
    async with in_front_of(*engines) as batcher:
        answers = await asyncio.gather(*(batcher.submit(picture(i)) for i in range(20)), return_exceptions=True)
        assert all(isinstance(answer, DeviceLost) for answer in answers)
        assert batcher.working == []
        assert batcher.lost is not None
        with pytest.raises(DeviceLost, match="gone"):
            await batcher.submit(picture())


async def test_the_longest_call_tells_how_long_the_engines_hang() -> None:
    gate = Gate()
    async with in_front_of(FakeEngine(before=gate), FakeEngine()) as batcher:
        hung = asyncio.create_task(batcher.submit(picture(), worker=0))
        await asyncio.to_thread(gate.entered.wait, 10)
        await batcher.submit(picture())  # the other one goes on
        assert batcher.busy_since is not None
        assert batcher.busy_since <= time.monotonic()
        gate.opened.set()
        await hung
    assert batcher.busy_since is None
