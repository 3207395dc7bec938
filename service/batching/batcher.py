"""Pictures in, batches to the engines, answers out. Knows no HTTP, no image formats and no device library.

A thread owns each engine, one a GPU; all take from one queue. Whenever one is free it cuts a batch from what waits at
that moment, so batches grow with the load and nobody waits for a timer. How many may wait is admission's business.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.batching.fault_isolation import FaultIsolatingEngine, OnCall, Outcome
from service.batching.queue import BatchQueue, Inferred, QueuedImage
from service.errors import DeadlineExceeded, DeviceLost, EngineError, NotReady
from service.types import Engine, UInt8Array

log = logging.getLogger("alignseg.batcher")


@dataclass(eq=False, slots=True)
class _Worker:
    """An engine and the thread that owns it. busy_since: when the call that it is in now began."""

    number: int
    engine: Engine
    attempts: FaultIsolatingEngine
    busy_since: float | None = None
    ended: bool = False


class Batcher:
    """The queue in front of the engines of one model, each on a device of its own."""

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        max_queue_delay_s: float = 0.0,
        on_call: OnCall = lambda size, error: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._delay_s = max_queue_delay_s
        self._clock = clock
        self._waiting = BatchQueue()
        self._draining = False
        self._changed = threading.Condition()
        self._workers = [_Worker(n, engine, FaultIsolatingEngine(engine, on_call)) for n, engine in enumerate(engines)]
        self._threads = [
            threading.Thread(target=self._run, args=(worker,), name=f"engine {worker.engine.name}", daemon=True)
            for worker in self._workers
        ]
        for thread in self._threads:
            thread.start()

    @property
    def runtime(self) -> str:
        """The engines' names, each once."""
        return ", ".join(dict.fromkeys(worker.engine.name for worker in self._workers))

    @property
    def has_confidence(self) -> bool:
        """Whether all engines can tell it."""
        return all(worker.engine.has_confidence for worker in self._workers)

    @property
    def total_batch_size(self) -> int:
        """How many pictures all engines take at once."""
        return sum(worker.engine.max_batch for worker in self._workers)

    @property
    def working(self) -> list[int]:
        """The engines that are not lost, by their place among those given."""
        return [worker.number for worker in self._workers if worker.attempts.lost is None]

    @property
    def lost(self) -> DeviceLost | None:
        """Why all engines are gone for good, if they are: only a new process helps."""
        return None if self.working else self._workers[-1].attempts.lost

    @property
    def last_error(self) -> EngineError | None:
        """What the latest inference of an engine failed with; None once each that is not lost works again."""
        errors = (self._workers[number].attempts.last_error for number in self.working)
        return next((error for error in errors if error is not None), self.lost)

    @property
    def busy_since(self) -> float | None:
        """When the longest of the calls that engines are in now began, on `clock`."""
        return min((since for worker in self._workers if (since := worker.busy_since) is not None), default=None)

    async def submit(
        self,
        pixels: UInt8Array,
        deadline: float = float("inf"),
        with_confidence: bool = False,
        worker: int | None = None,
    ) -> Inferred:
        """Wait for the class map of one picture.

        pixels: (H, W, 3) uint8 RGB, C-contiguous. deadline: on `clock`; past it the picture is not computed.
        with_confidence: only for engines that have it. worker: the engine that is to do it; None: whichever is free.
        Raises EngineError, DeadlineExceeded or NotReady. When cancelled it leaves the queue at once, or, if
        the engine has it already, ends when the engine is done with it.
        """
        answer = asyncio.get_running_loop().create_future()
        item = QueuedImage(pixels, with_confidence, worker, self._clock(), deadline, answer)
        self._enqueue(item)
        try:
            return await asyncio.shield(item.answer)
        except asyncio.CancelledError:
            if not self._withdraw(item):
                await asyncio.wait([item.answer])
                item.answer.exception()  # looked at: nobody else will
            raise

    async def drain(self, timeout_s: float) -> bool:
        """Take no more, answer all that waits, end the threads. False when that took longer than `timeout_s`."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            await asyncio.to_thread(thread.join, max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _enqueue(self, item: QueuedImage) -> None:
        with self._changed:
            lost = self.lost if item.worker is None else self._workers[item.worker].attempts.lost
            if lost is not None:
                raise DeviceLost(str(lost))  # afresh: a raised exception keeps every traceback it went through
            if self._draining:
                raise NotReady("the server is shutting down; send the request to another replica.")
            self._waiting.add(item)
            if item.worker is None:
                self._changed.notify()
            else:
                self._changed.notify_all()  # one alone might be another worker

    def _withdraw(self, item: QueuedImage) -> bool:
        """Take an item out of the queue; False when an engine has it."""
        with self._changed:
            if not self._waiting.cancel(item):
                return False
        item.answer.cancel()
        return True

    # From here on: the engines' threads.

    def _run(self, worker: _Worker) -> None:
        try:
            while worker.attempts.lost is None and (batch := self._next_batch(worker)):
                self._compute_or_tell(worker, batch)
        except Exception as error:
            log.exception("the engine's thread failed")
            worker.attempts.lost = DeviceLost(f"the engine's thread failed: {error!r}")
        finally:
            self._leave(worker)
            worker.engine.close()

    def _compute_or_tell(self, worker: _Worker, batch: list[QueuedImage]) -> None:
        """Whatever goes wrong, nobody of the batch is left without an answer."""
        try:
            self._compute(worker, batch)
        except Exception as error:
            log.exception("the engine's thread failed")
            worker.attempts.lost = lost = DeviceLost(f"the engine's thread failed: {error!r}")
            _settle(batch, [lost] * len(batch))

    def _next_batch(self, worker: _Worker) -> list[QueuedImage]:
        """Wait for a batch that is worth computing; empty when drained."""
        with self._changed:
            while True:
                self._drop_expired()
                if self._draining and not self._waiting.has_work_for(worker.number):
                    return []
                delay_s = 0.0 if self._draining else self._delay_s
                batch, wait_s = self._waiting.next_batch(worker.number, worker.engine.max_batch, self._clock(), delay_s)
                if batch:
                    return batch
                self._changed.wait(wait_s)

    def _drop_expired(self) -> None:
        expired = self._waiting.take_expired(self._clock())
        late = DeadlineExceeded("the deadline passed in the queue; the picture was not computed. Come back later.")
        _settle(expired, [late] * len(expired))

    def _compute(self, worker: _Worker, batch: list[QueuedImage]) -> None:
        began = worker.busy_since = self._clock()
        outcomes = worker.attempts.infer([item.pixels for item in batch], batch[0].with_confidence)
        infer_s, worker.busy_since = self._clock() - began, None
        if worker.attempts.lost is not None and self._hand_over(batch):
            return

        def answer(item: QueuedImage, found: Outcome) -> Inferred | EngineError:
            if isinstance(found, EngineError):
                return found
            return Inferred(found.ids, found.confidence, began - item.arrived, infer_s, len(batch))

        _settle(batch, [answer(item, found) for item, found in zip(batch, outcomes, strict=True)])

    def _hand_over(self, batch: list[QueuedImage]) -> bool:
        """Let the other engines do what a lost one had begun; False when there is none, or they may not."""
        with self._changed:
            if batch[0].worker is not None or all(other.ended or other.attempts.lost for other in self._workers):
                return False
            self._waiting.requeue(batch)
            self._changed.notify_all()
            return True

    def _leave(self, worker: _Worker) -> None:
        """Answer whoever waits for this engine, or, when it is the last, for any: nobody is left behind."""
        lost = worker.attempts.lost
        with self._changed:
            worker.ended = True
            is_last = all(other.ended for other in self._workers)
            self._draining = self._draining or is_last
            left = self._waiting.take_all(None if is_last else worker.number)
        if lost is not None and not is_last:
            log.error("%s is lost, %d of %d engines go on", worker.engine.name, len(self.working), len(self._workers))
        _settle(left, [lost or EngineError("the engine was closed")] * len(left))


def _settle(items: Sequence[QueuedImage], outcomes: Sequence[Inferred | Exception]) -> None:
    """Hand the outcomes over to the event loop: one hop for all of a batch."""
    if not items:
        return
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to answer
        items[0].answer.get_loop().call_soon_threadsafe(_set, list(zip(items, outcomes, strict=True)))


def _set(outcomes: Sequence[tuple[QueuedImage, Inferred | Exception]]) -> None:
    for item, outcome in outcomes:
        if item.answer.done():
            continue
        if isinstance(outcome, Exception):
            item.answer.set_exception(outcome)
        else:
            item.answer.set_result(outcome)
