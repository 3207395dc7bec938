"""One model that answers: its manifest, its engine and the batcher in front of it."""

import asyncio
import contextlib
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import numpy as np

from service.attempts import OnCall
from service.batcher import Batcher
from service.contracts import Engine, UInt8Array
from service.errors import BadRequest, EngineError, EngineLost, InferenceFailed, NotReady
from service.manifest import Manifest
from service.waiting import Inferred


class ServedModel:
    """A model may be exchanged for another while requests are under way: each keeps the one it began with."""

    def __init__(
        self,
        manifest: Manifest,
        engines: Sequence[Engine],
        *,
        max_queue_delay_s: float = 0.0,
        on_call: OnCall = lambda size, error: None,
    ) -> None:
        self.manifest = manifest
        self.runtime = ", ".join(dict.fromkeys(engine.name for engine in engines))
        self.has_confidence = all(engine.has_confidence for engine in engines)
        self.batch_in_all = sum(engine.max_batch for engine in engines)
        self.batcher = Batcher(engines, max_queue_delay_s=max_queue_delay_s, on_call=on_call)
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    async def warm_up(self) -> None:
        """Infer once in every bucket on every engine, so that the first client does not pay for it.

        Raises EngineError when the model can't be served.
        """
        for height, width in self.manifest.input.buckets:
            blank = np.zeros((height, width, 3), dtype=np.uint8)
            engines: Sequence[int | None] = self.batcher.working or [None]  # None: all are lost, and submit says why
            await asyncio.gather(*(self.batcher.submit(blank, worker=engine) for engine in engines))

    @contextmanager
    def in_use(self) -> Generator[None, None, None]:
        """While inside, the model is not retired."""
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def retire(self, timeout_s: float) -> bool:
        """Wait until nobody uses it, then let go of the engine. False when the engine took too long."""
        by = time.monotonic() + timeout_s
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._unused.wait(), timeout_s)
        return await self.batcher.drain(max(0.0, by - time.monotonic())) and self._unused.is_set()

    def require_confidence(self) -> None:
        """Raises BadRequest when the engine can't tell its confidence."""
        if not self.has_confidence:
            raise BadRequest(
                f"the model {self.manifest.name} {self.manifest.version} tells no confidence. Leave confidence=true "
                "out, or export the model again with a version of this program that adds it."
            )

    async def infer(self, tensor: UInt8Array, deadline: float, with_confidence: bool) -> Inferred:
        """One tensor, (H, W, 3) uint8 RGB. Raises RequestError."""
        try:
            return await self.batcher.submit(tensor, deadline, with_confidence)
        except EngineLost as error:
            raise NotReady(f"the engine is lost: {error}") from error
        except EngineError as error:
            raise InferenceFailed(f"{error} The picture was read well; if others pass, report this one.") from error
