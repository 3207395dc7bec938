"""One model that answers: its manifest, and the queue in front of its engines."""

import asyncio
import contextlib
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from service.batching.queue import Inferred
from service.errors import BadRequest, DeviceLost, EngineError, InferenceFailed, NotReady
from service.model_folder.manifest import Manifest
from service.types import UInt8Array


class InferenceQueue(Protocol):
    """What stands in front of a model's engines: Batcher, or, for engines elsewhere, fleet's RemoteBatcher.

    runtime: the engines' names, as users know them. has_confidence: whether all can tell it.
    total_batch_size: how many pictures all engines take at once. The rest as in Batcher.
    """

    @property
    def runtime(self) -> str: ...  # noqa: D102
    @property
    def has_confidence(self) -> bool: ...  # noqa: D102
    @property
    def total_batch_size(self) -> int: ...  # noqa: D102
    @property
    def working(self) -> list[int]: ...  # noqa: D102
    @property
    def lost(self) -> DeviceLost | None: ...  # noqa: D102
    @property
    def last_error(self) -> EngineError | None: ...  # noqa: D102
    @property
    def busy_since(self) -> float | None: ...  # noqa: D102

    async def submit(  # noqa: D102
        self, pixels: UInt8Array, deadline: float = ..., with_confidence: bool = ..., worker: int | None = ...
    ) -> Inferred: ...

    async def drain(self, timeout_s: float) -> bool: ...  # noqa: D102


class ServedModel:
    """A model may be exchanged for another while requests are under way: each keeps the one it began with."""

    def __init__(self, manifest: Manifest, batcher: InferenceQueue) -> None:
        self.manifest = manifest
        self.batcher = batcher
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def runtime(self) -> str:
        """The engines' names, as users know them."""
        return self.batcher.runtime

    @property
    def has_confidence(self) -> bool:
        """Whether the engines can tell their confidence."""
        return self.batcher.has_confidence

    @property
    def total_batch_size(self) -> int:
        """How many pictures all engines take at once."""
        return self.batcher.total_batch_size

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
        except DeviceLost as error:
            raise NotReady(f"the engine is lost: {error}") from error
        except EngineError as error:
            raise InferenceFailed(f"{error} The picture was read well; if others pass, report this one.") from error
