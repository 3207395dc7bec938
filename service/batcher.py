"""Pictures in, batches to the engine, answers out. Knows no HTTP, no image formats and no device library.

One thread owns the engine. Whenever it is free it cuts a batch from what waits at that moment, so batches grow
with the load and nobody waits for a timer. How many may wait is admission's business.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.attempts import Attempts, OnCall, Outcome
from service.contracts import Engine, UInt8Array
from service.errors import DeadlineExceeded, EngineError, EngineLost, NotReady

log = logging.getLogger("alignseg.batcher")


@dataclass(frozen=True, slots=True)
class Inferred:
    """One picture's share of a batch.

    ids, confidence: (H, W) uint8 in the bucket, as in contracts.Inference; confidence is None when not asked for.
    queued_s, infer_s: the seconds it waited and was computed. batch_size: how many shared the batch.
    """

    ids: UInt8Array
    confidence: UInt8Array | None
    queued_s: float
    infer_s: float
    batch_size: int


@dataclass(eq=False, slots=True)
class _Item:
    """A picture that waits. `answer` is touched on the event loop alone."""

    pixels: UInt8Array
    with_confidence: bool
    arrived: float
    deadline: float
    answer: asyncio.Future[Inferred]

    @property
    def bucket(self) -> "_Bucket":
        """What the pictures of one batch have in common."""
        return self.pixels.shape, self.with_confidence


_Bucket = tuple[tuple[int, ...], bool]


class Batcher:
    """The queue in front of one engine.

    busy_since: when the call that the engine is in now began, on `clock`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_queue_delay_s: float = 0.0,
        on_call: OnCall = lambda size, error: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.busy_since: float | None = None
        self._engine = engine
        self._attempts = Attempts(engine, on_call)
        self._delay_s = max_queue_delay_s
        self._clock = clock
        self._waiting: dict[_Bucket, deque[_Item]] = {}  # each in order of arrival, none empty
        self._draining = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"engine {engine.name}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> EngineLost | None:
        """Why the engine is gone for good, if it is: only a new process helps."""
        return self._attempts.lost

    @property
    def last_error(self) -> EngineError | None:
        """What the latest inference failed with; None once one works again."""
        return self._attempts.last_error

    async def submit(
        self, pixels: UInt8Array, deadline: float = float("inf"), with_confidence: bool = False
    ) -> Inferred:
        """Wait for the class map of one picture.

        pixels: (H, W, 3) uint8 RGB, C-contiguous. deadline: on `clock`; past it the picture is not computed.
        with_confidence: only for engines that have it.
        Raises EngineError, DeadlineExceeded or NotReady. When cancelled it leaves the queue at once, or, if
        the engine has it already, ends when the engine is done with it.
        """
        item = _Item(pixels, with_confidence, self._clock(), deadline, asyncio.get_running_loop().create_future())
        self._enqueue(item)
        try:
            return await asyncio.shield(item.answer)
        except asyncio.CancelledError:
            if not self._withdraw(item):
                await asyncio.wait([item.answer])
                item.answer.exception()  # looked at: nobody else will
            raise

    async def drain(self, timeout_s: float) -> bool:
        """Take no more, answer all that waits, end the thread. False when that took longer than `timeout_s`."""
        with self._changed:
            self._draining = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join, timeout_s)
        return not self._thread.is_alive()

    def _enqueue(self, item: _Item) -> None:
        with self._changed:
            if self.lost is not None:
                raise EngineLost(str(self.lost))  # afresh: a raised exception keeps every traceback it went through
            if self._draining:
                raise NotReady("the server is shutting down; send the request to another replica.")
            self._waiting.setdefault(item.bucket, deque()).append(item)
            self._changed.notify()

    def _withdraw(self, item: _Item) -> bool:
        """Take an item out of the queue; False when the engine has it."""
        with self._changed:
            queue = self._waiting.get(item.bucket, deque())
            if item not in queue:
                return False
            queue.remove(item)
            self._forget_empty()
        item.answer.cancel()
        return True

    # From here on: the engine's thread.

    def _run(self) -> None:
        try:
            while self.lost is None and (batch := self._next_batch()):
                self._compute_or_tell(batch)
        except Exception as error:
            log.exception("the engine's thread failed")
            self._attempts.lost = EngineLost(f"the engine's thread failed: {error!r}")
        finally:
            self._abandon()
            self._engine.close()

    def _compute_or_tell(self, batch: list[_Item]) -> None:
        """Whatever goes wrong, nobody of the batch is left without an answer."""
        try:
            self._compute(batch)
        except Exception as error:
            log.exception("the engine's thread failed")
            self._attempts.lost = lost = EngineLost(f"the engine's thread failed: {error!r}")
            _settle(batch, [lost] * len(batch))

    def _next_batch(self) -> list[_Item]:
        """Wait for a batch that is worth computing; empty when drained."""
        with self._changed:
            while True:
                self._drop_expired()
                if not self._waiting and self._draining:
                    return []
                batch, wait_s = self._cut()
                if batch:
                    return batch
                self._changed.wait(wait_s)

    def _cut(self) -> tuple[list[_Item], float | None]:
        """The next batch, or how long to wait for one; None: until something arrives.

        The bucket whose head is oldest goes first, so none starves; while that one may still wait for
        company, a bucket that fills a batch goes ahead.
        """
        queues = sorted(self._waiting.values(), key=lambda queue: queue[0].arrived)
        if not queues:
            return [], None
        left_s = queues[0][0].arrived + self._delay_s - self._clock()
        due = left_s <= 0 or self._draining
        chosen = next((q for q in queues if due or len(q) >= self._engine.max_batch), None)
        if chosen is None:
            return [], left_s
        batch = [chosen.popleft() for _ in range(min(len(chosen), self._engine.max_batch))]
        self._forget_empty()
        return batch, None

    def _drop_expired(self) -> None:
        now = self._clock()
        expired = [item for queue in self._waiting.values() for item in queue if item.deadline <= now]
        for item in expired:
            self._waiting[item.bucket].remove(item)
        self._forget_empty()
        late = DeadlineExceeded("the deadline passed in the queue; the picture was not computed. Come back later.")
        _settle(expired, [late] * len(expired))

    def _forget_empty(self) -> None:
        self._waiting = {bucket: queue for bucket, queue in self._waiting.items() if queue}

    def _compute(self, batch: list[_Item]) -> None:
        began = self.busy_since = self._clock()
        outcomes = self._attempts.infer([item.pixels for item in batch], batch[0].with_confidence)
        infer_s, self.busy_since = self._clock() - began, None

        def answer(item: _Item, found: Outcome) -> Inferred | EngineError:
            if isinstance(found, EngineError):
                return found
            return Inferred(found.ids, found.confidence, began - item.arrived, infer_s, len(batch))

        _settle(batch, [answer(item, found) for item, found in zip(batch, outcomes, strict=True)])

    def _abandon(self) -> None:
        """Answer whoever still waits: nobody is left behind when the thread ends."""
        with self._changed:
            self._draining = True
            left = [item for queue in self._waiting.values() for item in queue]
            self._waiting = {}
        _settle(left, [self.lost or EngineError("the engine was closed")] * len(left))


def _settle(items: Sequence[_Item], outcomes: Sequence[Inferred | Exception]) -> None:
    """Hand the outcomes over to the event loop: one hop for all of a batch."""
    if not items:
        return
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to answer
        items[0].answer.get_loop().call_soon_threadsafe(_set, list(zip(items, outcomes, strict=True)))


def _set(outcomes: Sequence[tuple[_Item, Inferred | Exception]]) -> None:
    for item, outcome in outcomes:
        if item.answer.done():
            continue
        if isinstance(outcome, Exception):
            item.answer.set_exception(outcome)
        else:
            item.answer.set_result(outcome)
