"""One image from bytes to response: decode -> letterbox or tile -> batch -> engine -> class map -> render."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from service.admission.controller import AdmissionController, Limits
from service.admission.pixel_budget import PixelBudget, ReservePixels
from service.admission.stalled_uploads import Permit
from service.batching.queue import InferenceResult
from service.imaging.model_input import ImageLimits, ModelInput, open_image
from service.imaging.tile_plan import TileMode
from service.inference.health import Health
from service.inference.served_model import ServedModel
from service.inference.thread_pool import ThreadPool
from service.inference.tile_deadline import TileDeadline
from service.model_folder.manifest import Manifest
from service.observers import isolated
from service.rendering.segmentation import Segmentation
from service.settings import Settings
from service.telemetry import request_record
from service.types import UInt8Array

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RenderedResponse:
    """The body of a response and the milliseconds of each stage."""

    body: bytes
    timing_ms: dict[str, float]


class Pipeline:
    """Serves one model, which may be replaced. Independent of HTTP: routes acquire permits and call `segment`."""

    def __init__(self, settings: Settings, model: ServedModel) -> None:
        self.settings = settings
        self.admission = AdmissionController(_limits(settings, model))
        self.health = Health(settings, self.admission, model)
        self.pixels = PixelBudget(settings.max_pixels_in_flight, self.admission.estimated_drain_s)
        self._tile_slots = asyncio.Semaphore(self._concurrent_tiles)
        # One pool for decoding and encoding: more threads would only wait for Python's global lock.
        self._codecs = ThreadPool("codec", settings.codec_threads)
        self._closing: set[asyncio.Task[bool]] = set()  # replaced models that still complete requests
        self._drain_deadline: float | None = None

    @property
    def model(self) -> ServedModel:
        """The model for new requests."""
        return self.health.model

    @property
    def manifest(self) -> Manifest:
        """The manifest of that model."""
        return self.model.manifest

    def update_limits(self) -> None:
        """Recompute the admission limits from the engines that exist now: replicas of Ray Serve come and go."""
        before, self.admission.limits = self._concurrent_tiles, _limits(self.settings, self.model)
        if self._concurrent_tiles != before:
            self._tile_slots = asyncio.Semaphore(self._concurrent_tiles)

    def replace_model(self, model: ServedModel) -> None:
        """Serve another model, already warmed up, from now on. Requests in progress end with the old one."""
        old, self.health.model = self.model, model
        self.update_limits()
        closing = asyncio.ensure_future(old.close_when_idle(self.settings.drain_timeout_s))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def segment(
        self,
        image: bytes | UInt8Array,
        render: Callable[[Segmentation], bytes],
        deadline: float,
        permit: Permit,
        *,
        with_confidence: bool = False,
        tile: TileMode = "auto",
        with_pixels: bool = True,
    ) -> RenderedResponse:
        """Segment an image and render the response.

        image: an encoded file, or (H, W, 3) uint8 RGB. render: makes the body; called in a thread.
        deadline: on time.monotonic(). permit: counts the image's tensors. tile: see imaging/tile_plan.py.
        with_confidence, with_pixels: whether the segmentation contains them; without its pixels, decoding a large image
        takes a tenth of the time.
        Raises RequestError. When cancelled, ends once its work has ended.
        """
        model = self.model
        with isolated:
            request_record.note_model(model.manifest.name)
        if with_confidence:
            model.require_confidence()
        with model.in_use(), self.pixels.reservation() as reserve:
            began = time.monotonic()
            pixels, model_input = await self._codecs.run(
                partial(self._decode, model.manifest, image, tile, with_pixels, reserve)
            )
            timing = {"decode": _note_stage("decode", began)}
            began = time.monotonic()
            results = await self._infer_all(model, model_input, deadline, permit, with_confidence)
            timing |= _note_queue_and_infer(began, results)
            began = time.monotonic()
            response = await self._codecs.run(
                partial(_render, model.manifest, pixels, model_input, results, timing, render)
            )
            _note_stage("encode", began)
            return response

    def require_confidence(self) -> None:
        """Raise BadRequest if the engines have no confidence output."""
        self.model.require_confidence()

    async def off_loop(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call work(...) in a codec thread: to parse or write large messages without blocking the event loop."""
        return await self._codecs.run(partial(work, *args, **kwargs))

    def _decode(
        self, manifest: Manifest, image: bytes | UInt8Array, tile: TileMode, with_pixels: bool, reserve: ReservePixels
    ) -> tuple[UInt8Array | None, ModelInput]:
        limits = ImageLimits(self.settings.max_pixels, self.settings.max_tiles, reserve)
        return open_image(image, manifest.input.buckets, limits, tile=tile, with_pixels=with_pixels)

    async def _infer_all(
        self, model: ServedModel, model_input: ModelInput, deadline: float, permit: Permit, with_confidence: bool
    ) -> list[InferenceResult]:
        """Infer all tensors of one image, in order; the first failure cancels the others."""
        if model_input.count == 1:
            return [await model.infer(model_input.tensor(0), deadline, with_confidence)]
        permit.decoded(model_input.count)
        concurrent, slots = self._concurrent_tiles, self._tile_slots
        max_s = self.settings.request_timeout_ms / 1e3
        tile_deadline = TileDeadline(model_input.count, deadline, concurrent, advice=model_input.advice, max_s=max_s)
        results: dict[int, InferenceResult] = {}
        remaining = iter(range(model_input.count))

        async def infer_remaining_tiles() -> None:
            for index in remaining:
                async with slots:
                    tensor = await self._codecs.run(model_input.tensor, index)
                    results[index] = await model.infer(tensor, deadline, with_confidence)
                permit.tile_computed()
                tile_deadline.tile_done()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrent, model_input.count)):
                    group.create_task(infer_remaining_tiles())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [results[index] for index in range(model_input.count)]

    @property
    def _concurrent_tiles(self) -> int:
        return self.admission.limits.concurrent_tiles

    def stop_admitting(self, because: str = "the server is shutting down") -> None:
        """Become not ready and admit no requests; admitted ones are completed."""
        self.admission.close(because)
        self._drain_deadline = self._drain_deadline or time.monotonic() + self.settings.drain_timeout_s

    async def drain(self) -> bool:
        """Complete all admitted requests, then close the engines. Return False after ALIGNSEG_DRAIN_TIMEOUT_S."""
        self.stop_admitting()
        left_s = max(0.0, (self._drain_deadline or 0.0) - time.monotonic())
        drained = await asyncio.gather(self.model.close_when_idle(left_s), *self._closing)
        self._codecs.close()
        return all(drained)


def _limits(settings: Settings, model: ServedModel) -> Limits:
    # Enough to keep every stage busy although stage times vary: a batch in each engine and one waiting, one image in
    # each codec thread and three waiting. It is a lower limit, because throughput measured with fewer would stay low.
    min_active = 4 * settings.codec_threads + 2 * model.total_batch_size
    return Limits(
        settings.max_in_flight,
        settings.max_bytes_in_flight,
        settings.overload_latency_ms / 1e3,
        min_active,
        # Two full batches keep the engine busy and let images of other requests in between.
        concurrent_tiles=2 * model.total_batch_size,
    )


def _note_stage(stage: str, began: float) -> float:
    """Note a stage in the request record; return its milliseconds, from `began` until now."""
    seconds = time.monotonic() - began
    with isolated:
        request_record.note_stage(stage, began, seconds)
    return seconds * 1e3


def _note_queue_and_infer(began: float, results: Sequence[InferenceResult]) -> dict[str, float]:
    """Note and return the milliseconds of queue and infer. With tiles: the wait of the first, then all the rest."""
    queued_s = results[0].queued_s
    infer_s = results[0].infer_s if len(results) == 1 else time.monotonic() - began - queued_s
    with isolated:
        request_record.note_stage("queue", began, queued_s)
        request_record.note_stage("infer", began + queued_s, infer_s)
    return {"queue": queued_s * 1e3, "infer": infer_s * 1e3}


def _render(
    manifest: Manifest,
    pixels: UInt8Array | None,
    model_input: ModelInput,
    results: Sequence[InferenceResult],
    timing_ms: dict[str, float],
    render: Callable[[Segmentation], bytes],
) -> RenderedResponse:
    began = time.perf_counter()
    ids = model_input.assemble_ids([result.ids for result in results])
    confidences = [result.confidence for result in results if result.confidence is not None]
    confidence = model_input.assemble(confidences) if confidences else None
    size, tiles = model_input.input_size, model_input.count
    seg = Segmentation(manifest, pixels, ids, timing_ms, began, confidence=confidence, input_size=size, tiles=tiles)
    return RenderedResponse(render(seg), seg.timing_until_now())
