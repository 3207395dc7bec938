"""The picture road in one place: decode -> prepare -> batch -> engine -> restore -> encode."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from service.admission import Admission
from service.answers import Segmentation
from service.batcher import Batcher, Inferred
from service.contracts import Engine, UInt8Array
from service.decode import decode
from service.errors import BadRequest, EngineError, EngineLost, InferenceFailed, NotReady
from service.manifest import Manifest
from service.pool import Pool
from service.settings import Settings
from service.views import View, view

_PROBE_S = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes of a body and the milliseconds of each stage."""

    body: bytes
    timing_ms: dict[str, float]


class Pipeline:
    """One model, served. Routes ask it for permits and answers; it knows no HTTP."""

    def __init__(self, settings: Settings, manifest: Manifest, engine: Engine) -> None:
        self.settings = settings
        self.manifest = manifest
        self.admission = Admission(settings.max_in_flight)
        self._engine = engine
        self._batcher = Batcher(engine, max_queue_delay_s=settings.max_queue_delay_ms / 1e3)
        self._decoders = Pool("decode", settings.codec_threads)
        self._encoders = Pool("encode", settings.codec_threads)

    async def warm_up(self) -> None:
        """Infer once in every bucket, so that the first client does not pay for it.

        Raises EngineError when the model can't be served.
        """
        for height, width in self.manifest.input.buckets:
            await self._batcher.submit(np.zeros((height, width, 3), dtype=np.uint8))

    async def answer(
        self,
        data: bytes,
        render: Callable[[Segmentation], bytes],
        deadline: float,
        *,
        with_confidence: bool = False,
        tile: bool = False,
    ) -> Answer:
        """Segment a picture.

        data: the picture's bytes. render: makes the body, in a thread. deadline: on time.monotonic().
        with_confidence: the segmentation has it too. tile: see tiles.py.
        Raises RequestError. Ends when its work ends, also when it is cancelled.
        """
        began = time.perf_counter()
        pixels, seen = await self._decoders.run(partial(self._open, data, tile))
        decode_ms = (time.perf_counter() - began) * 1e3
        began = time.perf_counter()
        inferred = await self._infer_all(seen, deadline, with_confidence)
        queue_ms = inferred[0].queued_s * 1e3
        # Of tiles: the wait of the first, then all until the last is done.
        infer_ms = inferred[0].infer_s * 1e3 if seen.count == 1 else (time.perf_counter() - began) * 1e3 - queue_ms
        timing = {"decode": decode_ms, "queue": queue_ms, "infer": infer_ms}
        return await self._encoders.run(partial(self._close, pixels, seen, inferred, timing, render))

    def require_confidence(self) -> None:
        """Raises BadRequest when the engine can't tell its confidence."""
        if not self._engine.has_confidence:
            raise BadRequest(
                f"the model {self.manifest.name} {self.manifest.version} tells no confidence. Leave confidence=true "
                "out, or export the model again with a version of this program that adds it."
            )

    def _open(self, data: bytes, tile: bool) -> tuple[UInt8Array, View]:
        pixels = decode(data, self.settings.max_pixels)
        return pixels, view(pixels, self.manifest.input.buckets, tile=tile, max_tiles=self.settings.max_tiles)

    async def _infer_all(self, seen: View, deadline: float, with_confidence: bool) -> list[Inferred]:
        """All tensors of one picture, in order; the first failure ends the others."""
        if seen.count == 1:
            return [await self._infer(seen.tensor(0), deadline, with_confidence)]
        # Two batches' worth at a time keep the engine busy, and let other clients' pictures in between.
        places = asyncio.Semaphore(2 * self._engine.max_batch)

        async def one(index: int) -> Inferred:
            async with places:
                tensor = await self._decoders.run(seen.tensor, index)
                return await self._infer(tensor, deadline, with_confidence)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(index)) for index in range(seen.count)]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _infer(self, pixels: UInt8Array, deadline: float, with_confidence: bool) -> Inferred:
        try:
            return await self._batcher.submit(pixels, deadline, with_confidence)
        except EngineLost as error:
            raise NotReady(f"the engine is lost: {error}") from error
        except EngineError as error:
            raise InferenceFailed(f"{error} The picture was read well; if others pass, report this one.") from error

    def _close(
        self,
        pixels: UInt8Array,
        seen: View,
        inferred: Sequence[Inferred],
        timing_ms: dict[str, float],
        render: Callable[[Segmentation], bytes],
    ) -> Answer:
        began = time.perf_counter()
        ids = seen.assemble([part.ids for part in inferred])
        told = [part.confidence for part in inferred if part.confidence is not None]
        confidence = seen.assemble(told) if told else None
        seg = Segmentation(self.manifest, pixels, ids, timing_ms, began, confidence=confidence, tiles=seen.count)
        return Answer(render(seg), seg.timing_until_now())

    @property
    def lost(self) -> bool:
        """Whether only a new process helps."""
        return self._batcher.lost is not None

    async def why_not_ready(self) -> str | None:
        """None when the last real inference worked and new work is taken; else the reason.

        After a failed inference the engine is tried anew, so that a server whose traffic was taken away comes back.
        """
        if self._batcher.lost is not None:
            return f"the engine is lost: {self._batcher.lost}"
        if self.admission.closed_because is not None:
            return self.admission.closed_because
        busy_since = self._batcher.busy_since
        if busy_since is not None and time.monotonic() - busy_since > self.settings.request_timeout_ms / 1e3:
            return f"the engine has been in one call for {time.monotonic() - busy_since:.0f} s"
        return await self._probe() if self._batcher.last_error is not None else None

    async def _probe(self) -> str | None:
        probe = asyncio.ensure_future(self.warm_up())
        # Not asyncio.timeout: that would wait for the engine, which may hang.
        done, _ = await asyncio.wait({probe}, timeout=_PROBE_S)
        if done and probe.exception() is None:
            return None
        probe.cancel()
        return f"the last inference failed: {self._batcher.last_error}"

    def stop_admitting(self, because: str = "the server is shutting down") -> None:
        """Not ready, no new work; what was accepted goes on."""
        self.admission.close(because)

    async def drain(self) -> bool:
        """Answer all that was accepted, then let go of the engine. False when that took too long."""
        self.stop_admitting()
        drained = await self._batcher.drain(self.settings.drain_timeout_s)
        self._decoders.close()
        self._encoders.close()
        return drained
