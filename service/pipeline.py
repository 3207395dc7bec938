"""The picture road in one place: decode -> prepare -> batch -> engine -> restore -> encode."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from service.admission import Admission
from service.answers import Segmentation
from service.batcher import Batcher, Inferred
from service.contracts import Engine, PreparedImage, UInt8Array
from service.decode import decode
from service.errors import EngineError, EngineLost, InferenceFailed, NotReady
from service.manifest import Manifest
from service.pool import Pool
from service.prepare import prepare, restore
from service.settings import Settings

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
        self._batcher = Batcher(engine, max_queue_delay_s=settings.max_queue_delay_ms / 1e3)
        self._decoders = Pool("decode", settings.codec_threads)
        self._encoders = Pool("encode", settings.codec_threads)

    async def warm_up(self) -> None:
        """Infer once in every bucket, so that the first client does not pay for it.

        Raises EngineError when the model can't be served.
        """
        for height, width in self.manifest.input.buckets:
            await self._batcher.submit(np.zeros((height, width, 3), dtype=np.uint8))

    async def answer(self, data: bytes, render: Callable[[Segmentation], bytes], deadline: float) -> Answer:
        """Segment a picture.

        data: the picture's bytes. render: makes the body, in a thread. deadline: on time.monotonic().
        Raises RequestError. Ends when its work ends, also when it is cancelled.
        """
        began = time.perf_counter()
        pixels, prepared = await self._decoders.run(self._open, data)
        decode_ms = (time.perf_counter() - began) * 1e3
        inferred = await self._infer(prepared.pixels, deadline)
        timing = {"decode": decode_ms, "queue": inferred.queued_s * 1e3, "infer": inferred.infer_s * 1e3}
        return await self._encoders.run(partial(self._close, pixels, prepared, inferred.ids, timing, render))

    def _open(self, data: bytes) -> tuple[UInt8Array, PreparedImage]:
        pixels = decode(data, self.settings.max_pixels)
        return pixels, prepare(pixels, self.manifest.input.buckets)

    async def _infer(self, pixels: UInt8Array, deadline: float) -> Inferred:
        try:
            return await self._batcher.submit(pixels, deadline)
        except EngineLost as error:
            raise NotReady(f"the engine is lost: {error}") from error
        except EngineError as error:
            raise InferenceFailed(f"{error} The picture was read well; if others pass, report this one.") from error

    def _close(
        self,
        pixels: UInt8Array,
        prepared: PreparedImage,
        ids: UInt8Array,
        timing_ms: dict[str, float],
        render: Callable[[Segmentation], bytes],
    ) -> Answer:
        began = time.perf_counter()
        seg = Segmentation(self.manifest, pixels, restore(ids, prepared).ids, timing_ms, began)
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
