"""The picture road in one place: decode -> prepare -> batch -> engine -> restore -> encode."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from service.admission.controller import AdmissionController, Limits
from service.admission.pixel_budget import PixelBudget, ReservePixels
from service.batching.queue import Inferred
from service.imaging.model_input import ImageLimits, ModelInput, open_image
from service.inference.health import Health
from service.inference.served_model import ServedModel
from service.inference.thread_pool import ThreadPool
from service.inference.tile_deadline import TileDeadline
from service.model_folder.manifest import Manifest
from service.rendering.segmentation import Segmentation
from service.settings import Settings
from service.telemetry import request_record
from service.types import UInt8Array

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes of a body and the milliseconds of each stage."""

    body: bytes
    timing_ms: dict[str, float]


class Pipeline:
    """One model, served; it may be exchanged for another. Routes ask for permits and answers; it knows no HTTP."""

    def __init__(self, settings: Settings, model: ServedModel) -> None:
        self.settings = settings
        self.admission = AdmissionController(_limits(settings, model))
        self.health = Health(settings, self.admission, model)
        self.pixels = PixelBudget(settings.max_pixels_in_flight, self.admission.estimated_drain_s)
        self._codecs = ThreadPool(
            "codec", settings.codec_threads
        )  # one for both: more threads would wait for Python's lock
        self._retiring: set[asyncio.Task[bool]] = set()
        self._drained_by: float | None = None

    @property
    def model(self) -> ServedModel:
        """The one that new requests get."""
        return self.health.model

    @property
    def manifest(self) -> Manifest:
        """What is known of that model."""
        return self.model.manifest

    def refit(self) -> None:
        """Take as much work as the engines can do that are there now: elsewhere they come and go."""
        self.admission.limits = _limits(self.settings, self.model)

    def exchange(self, model: ServedModel) -> None:
        """Serve another model from now on; it is warmed up already. Work that has begun ends with the old one."""
        old, self.health.model = self.model, model
        self.refit()
        retiring = asyncio.ensure_future(old.retire(self.settings.drain_timeout_s))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)

    async def answer(
        self,
        picture: bytes | UInt8Array,
        render: Callable[[Segmentation], bytes],
        deadline: float,
        *,
        with_confidence: bool = False,
        tile: bool = False,
        with_pixels: bool = True,
    ) -> Answer:
        """Segment a picture.

        picture: a file's bytes, or (H, W, 3) uint8 RGB. render: makes the body, in a thread.
        deadline: on time.monotonic(). tile: see tiles.py. with_confidence, with_pixels: whether the segmentation has
        them too; a large picture costs a tenth when nobody wants to see it.
        Raises RequestError. Ends when its work ends, also when it is cancelled.
        """
        model = self.model
        request_record.note_model(model.manifest.name)
        if with_confidence:
            model.require_confidence()
        with model.in_use(), self.pixels.share() as take:
            began = time.monotonic()
            pixels, seen = await self._codecs.run(partial(self._open, model.manifest, picture, tile, with_pixels, take))
            timing = {"decode": _noted("decode", began)}
            began = time.monotonic()
            inferred = await self._infer_all(model, seen, deadline, with_confidence)
            timing |= _queue_and_infer(began, inferred)
            began = time.monotonic()
            answer = await self._codecs.run(partial(_close, model.manifest, pixels, seen, inferred, timing, render))
            _noted("encode", began)
            return answer

    def require_confidence(self) -> None:
        """Raises BadRequest when the engine can't tell its confidence."""
        self.model.require_confidence()

    async def off_loop(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call work(...) in a codec's thread: for messages around pictures, to be read or written."""
        return await self._codecs.run(partial(work, *args, **kwargs))

    def _open(
        self, manifest: Manifest, picture: bytes | UInt8Array, tile: bool, with_pixels: bool, take: ReservePixels
    ) -> tuple[UInt8Array | None, ModelInput]:
        limits = ImageLimits(self.settings.max_pixels, self.settings.max_tiles, take)
        return open_image(picture, manifest.input.buckets, limits, tile=tile, with_pixels=with_pixels)

    async def _infer_all(
        self, model: ServedModel, seen: ModelInput, deadline: float, with_confidence: bool
    ) -> list[Inferred]:
        """All tensors of one picture, in order; the first failure ends the others."""
        if seen.count == 1:
            return [await model.infer(seen.tensor(0), deadline, with_confidence)]
        # Two batches' worth at a time keep the engine busy, and let other clients' pictures in between.
        at_once = 2 * model.total_batch_size
        places, pace = asyncio.Semaphore(at_once), TileDeadline(seen.count, deadline, at_once)

        async def one(index: int) -> Inferred:
            async with places:
                tensor = await self._codecs.run(seen.tensor, index)
                inferred = await model.infer(tensor, deadline, with_confidence)
            pace.tile_done()
            return inferred

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(index)) for index in range(seen.count)]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    def stop_admitting(self, because: str = "the server is shutting down") -> None:
        """Not ready, no new work; what was accepted goes on."""
        self.admission.close(because)
        self._drained_by = self._drained_by or time.monotonic() + self.settings.drain_timeout_s

    async def drain(self) -> bool:
        """Answer all that was accepted, then let go of the engine. False when that took too long."""
        self.stop_admitting()
        left_s = max(0.0, (self._drained_by or 0.0) - time.monotonic())
        drained = await asyncio.gather(self.model.retire(left_s), *self._retiring)
        self._codecs.close()
        return all(drained)


def _limits(settings: Settings, model: ServedModel) -> Limits:
    # A batch in each engine and one before it, and a picture in each codec thread and three before that, some to be
    # decoded and some to be encoded: as the stages' times vary, fewer would leave some of them idle. And a rate
    # measured with too few stays too low: so it is a floor.
    busy = 4 * settings.codec_threads + 2 * model.total_batch_size
    return Limits(settings.max_in_flight, settings.max_bytes_in_flight, settings.overload_latency_ms / 1e3, busy)


def _noted(stage: str, began: float) -> float:
    """Milliseconds since `began`, noted in the request's journal."""
    seconds = time.monotonic() - began
    request_record.note_stage(stage, began, seconds)
    return seconds * 1e3


def _queue_and_infer(began: float, inferred: Sequence[Inferred]) -> dict[str, float]:
    """Milliseconds. Of tiles: the wait of the first, then all until the last is done."""
    queued_s = inferred[0].queued_s
    infer_s = inferred[0].infer_s if len(inferred) == 1 else time.monotonic() - began - queued_s
    request_record.note_stage("queue", began, queued_s)
    request_record.note_stage("infer", began + queued_s, infer_s)
    return {"queue": queued_s * 1e3, "infer": infer_s * 1e3}


def _close(
    manifest: Manifest,
    pixels: UInt8Array | None,
    seen: ModelInput,
    inferred: Sequence[Inferred],
    timing_ms: dict[str, float],
    render: Callable[[Segmentation], bytes],
) -> Answer:
    began = time.perf_counter()
    ids = seen.assemble([part.ids for part in inferred])
    told = [part.confidence for part in inferred if part.confidence is not None]
    confidence = seen.assemble(told) if told else None
    seg = Segmentation(manifest, pixels, ids, timing_ms, began, confidence=confidence, tiles=seen.count)
    return Answer(render(seg), seg.timing_until_now())
