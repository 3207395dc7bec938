"""What happens around serving: load a model, warm it up, watch its folder; at the end drain."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.batching.batcher import Batcher
from service.batching.fault_isolation import OnCall
from service.errors import EngineError
from service.inference.model_reload import FolderSnapshot, ModelWatcher, snapshot
from service.inference.pipeline import Pipeline
from service.inference.served_model import ServedModel
from service.model_folder import manifest as manifests
from service.model_folder.manifest import Manifest
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.types import Engine

log = logging.getLogger("alignseg.app")
EngineFactory = Callable[[Settings, Manifest], Sequence[Engine]]
RemoteModelFactory = Callable[[Manifest, OnCall], ServedModel]  # a model whose engines are elsewhere


@dataclass(frozen=True, slots=True)
class Served:
    """What routes need while the application runs."""

    pipeline: Pipeline
    watch: ModelWatcher


@asynccontextmanager
async def serving(
    settings: Settings,
    figures: Metrics,
    engine_factory: EngineFactory,
    engines: Sequence[Engine] | None,
    manifest: Manifest | None,
    seen: FolderSnapshot | None = None,
    reach: RemoteModelFactory | None = None,
) -> AsyncGenerator[Served, None]:
    """A warm pipeline; drained on the way out.

    engines, manifest: the first model, if it is open already. opener: opens others, and the first one if not.
    seen: the folder as it was before that manifest was read.
    reach: finds the engines of a model elsewhere; then none are opened here. Called in a thread.
    Raises ManifestError, EngineUnavailable or EngineError.
    """
    seen = seen or snapshot(settings.model)
    described = manifest or manifests.load(settings.model)
    if reach is None:
        model = _served(settings, figures, described, engines or engine_factory(settings, described))
    else:
        model = await asyncio.to_thread(reach, described, _counting(figures, described.name))
    pipeline = Pipeline(settings, model)
    try:
        await model.warm_up()
        _announce(figures, model)
        _show(figures, pipeline)
        async with _watching(pipeline, settings, figures, engine_factory, seen, reach) as watch:
            yield Served(pipeline, watch)
    finally:
        if not await pipeline.drain():
            log.error("not all accepted work was answered within %s s", settings.drain_timeout_s)


@asynccontextmanager
async def _watching(
    pipeline: Pipeline,
    settings: Settings,
    figures: Metrics,
    engine_factory: EngineFactory,
    seen: FolderSnapshot,
    reach: RemoteModelFactory | None,
) -> AsyncGenerator[ModelWatcher, None]:
    """While inside, a changed model folder is noticed."""

    def load(manifest: Manifest) -> ServedModel:
        if reach is not None:
            return reach(manifest, _counting(figures, manifest.name))
        return _served(settings, figures, manifest, engine_factory(settings, manifest))

    def on_outcome(outcome: str) -> None:
        figures.swap(outcome)
        if outcome == "swapped":
            _announce(figures, pipeline.model)

    watch = ModelWatcher(pipeline, settings.model, load, settings.model_poll_s, on_outcome, seen)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _served(settings: Settings, figures: Metrics, manifest: Manifest, engines: Sequence[Engine]) -> ServedModel:
    delay_s = settings.max_queue_delay_ms / 1e3
    on_call = _counting(figures, manifest.name)
    return ServedModel(manifest, Batcher(engines, max_queue_delay_s=delay_s, on_call=on_call))


def _counting(figures: Metrics, model: str) -> OnCall:
    def on_call(size: int, error: EngineError | None) -> None:
        figures.batch(model, size, type(error).__name__ if error is not None else None)

    return on_call


def _announce(figures: Metrics, model: ServedModel) -> None:
    manifest = model.manifest
    figures.serving(manifest.name, manifest.version, model.runtime)
    log.info("ready: %s %s, %d classes", manifest.name, manifest.version, len(manifest.classes))


def _show(figures: Metrics, pipeline: Pipeline) -> None:
    admission = pipeline.admission
    figures.watch("engines_healthy", "Engines that are not lost", lambda: len(pipeline.model.batcher.working))
    figures.watch("in_flight", "Requests accepted and not answered yet, uploads included", lambda: admission.in_flight)
    figures.watch(
        "active_requests",
        "Requests that use the engine or the codecs; slow uploads are not counted",
        lambda: admission.work,
    )
    figures.watch("admission_limit", "Active requests that are accepted at the moment", admission.places)
    figures.watch(
        "estimated_drain_seconds",
        "Time until all active requests are answered, from the measured rate",
        admission.estimated_drain_s,
    )
    figures.watch("decoded_pixels", "Pixels of all decoded images in memory", lambda: pipeline.pixels.taken)
