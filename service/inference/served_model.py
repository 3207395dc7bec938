"""One loaded model: its manifest and the queue in front of its engines."""

import asyncio
import contextlib
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from service.batching.queue import InferenceResult
from service.errors import BadRequest, DeviceLost, EngineError, InferenceFailed, NotReady
from service.model_folder.manifest import Manifest
from service.types import UInt8Array


class InferenceQueue(Protocol):
    """The queue in front of a model's engines: batching.Batcher, or ray_serve.RemoteBatcher for engines on Ray Serve.

    See Batcher for what each member means.
    """

    @property
    def runtime(self) -> str: ...  # noqa: D102
    @property
    def has_confidence(self) -> bool: ...  # noqa: D102
    @property
    def total_batch_size(self) -> int: ...  # noqa: D102
    @property
    def healthy(self) -> list[int]: ...  # noqa: D102
    @property
    def lost(self) -> DeviceLost | None: ...  # noqa: D102
    @property
    def last_error(self) -> EngineError | None: ...  # noqa: D102
    @property
    def busy_since(self) -> float | None: ...  # noqa: D102

    async def submit(  # noqa: D102
        self, pixels: UInt8Array, deadline: float = ..., with_confidence: bool = ..., worker: int | None = ...
    ) -> InferenceResult: ...

    async def drain(self, timeout_s: float) -> bool: ...  # noqa: D102


class ServedModel:
    """A model that serves requests. It may be replaced while requests use it: each request keeps its model."""

    def __init__(self, manifest: Manifest, batcher: InferenceQueue) -> None:
        self.manifest = manifest
        self.batcher = batcher
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def runtime(self) -> str:
        """The engines' names, e.g. "tensorrt"."""
        return self.batcher.runtime

    @property
    def has_confidence(self) -> bool:
        """Whether the engines have a confidence output."""
        return self.batcher.has_confidence

    @property
    def total_batch_size(self) -> int:
        """The sum of all engines' largest batches."""
        return self.batcher.total_batch_size

    async def warm_up(self) -> None:
        """Run every engine once per bucket, so that the first request is not slowed down by initialisation.

        Raises EngineError if the model cannot be served.
        """
        for height, width in self.manifest.input.buckets:
            blank = np.zeros((height, width, 3), dtype=np.uint8)
            engines: Sequence[int | None] = self.batcher.healthy or [None]  # None: all are lost, and submit raises
            await asyncio.gather(*(self.batcher.submit(blank, worker=engine) for engine in engines))

    @contextmanager
    def in_use(self) -> Generator[None, None, None]:
        """Keep the model open until the context ends."""
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def close_when_idle(self, timeout_s: float) -> bool:
        """Wait until no request uses the model, then close its engines. Return False after `timeout_s`."""
        by = time.monotonic() + timeout_s
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._unused.wait(), timeout_s)
        return await self.batcher.drain(max(0.0, by - time.monotonic())) and self._unused.is_set()

    def require_confidence(self) -> None:
        """Raise BadRequest if the engines have no confidence output."""
        if not self.has_confidence:
            raise BadRequest(
                f"Model {self.manifest.name} {self.manifest.version} has no confidence output. "
                "Remove confidence=true or re-export the model."
            )

    async def infer(self, tensor: UInt8Array, deadline: float, with_confidence: bool) -> InferenceResult:
        """Infer one tensor, (H, W, 3) uint8 RGB. Raises RequestError."""
        try:
            return await self.batcher.submit(tensor, deadline, with_confidence)
        except DeviceLost as error:
            raise NotReady(f"Not ready: the engine is lost: {error}") from error
        except EngineError as error:
            message = (
                f"{str(error).removesuffix('.')}. The image was decoded. If other images succeed, report this one."
            )
            raise InferenceFailed(message) from error
