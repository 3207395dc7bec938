"""The lifetime of the pipeline: load a model, warm it up, watch its folder; at the end drain."""

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
from service.observers import failures, isolated
from service.settings import Settings
from service.telemetry import logs
from service.telemetry.metrics import Metrics
from service.types import Engine

log = logging.getLogger("alignseg.app")
EngineFactory = Callable[[Settings, Manifest], Sequence[Engine]]
RemoteModelFactory = Callable[[Manifest, OnCall], ServedModel]  # for a model whose engines are in other processes


@dataclass(frozen=True, slots=True)
class Served:
    """What routes need while the application runs."""

    pipeline: Pipeline
    watch: ModelWatcher


@asynccontextmanager
async def serving(
    settings: Settings,
    metrics: Metrics,
    engine_factory: EngineFactory,
    engines: Sequence[Engine] | None,
    manifest: Manifest | None,
    folder_before: FolderSnapshot | None = None,
    remote_model: RemoteModelFactory | None = None,
) -> AsyncGenerator[Served, None]:
    """Yield a warm pipeline; drain it on exit.

    engines, manifest: the first model, if it is already open. engine_factory: opens every other model.
    folder_before: the model folder before that manifest was read.
    remote_model: connects to engines in other processes; then engine_factory is not used. Called in a thread.
    Raises ManifestError, EngineUnavailable or EngineError.
    """
    folder_before = folder_before or snapshot(settings.model)
    manifest = manifest or manifests.load(settings.model)
    if remote_model is None:
        model = _local_model(settings, metrics, manifest, engines or engine_factory(settings, manifest))
    else:
        model = await asyncio.to_thread(remote_model, manifest, _count_calls(metrics, manifest.name))
    pipeline = Pipeline(settings, model)
    try:
        await model.warm_up()
        _announce(metrics, model)
        _add_gauges(metrics, pipeline)
        async with _watching(pipeline, settings, metrics, engine_factory, folder_before, remote_model) as watch:
            yield Served(pipeline, watch)
    finally:
        if not await pipeline.drain():
            log.error("Drain incomplete: some requests had no response within %g s", settings.drain_timeout_s)


@asynccontextmanager
async def _watching(
    pipeline: Pipeline,
    settings: Settings,
    metrics: Metrics,
    engine_factory: EngineFactory,
    folder_before: FolderSnapshot,
    remote_model: RemoteModelFactory | None,
) -> AsyncGenerator[ModelWatcher, None]:
    """Run a ModelWatcher until the context ends."""

    def load(manifest: Manifest) -> ServedModel:
        if remote_model is not None:
            return remote_model(manifest, _count_calls(metrics, manifest.name))
        return _local_model(settings, metrics, manifest, engine_factory(settings, manifest))

    def on_outcome(outcome: str) -> None:
        with isolated:
            metrics.model_swap(outcome)
        if outcome == "swapped":
            _announce(metrics, pipeline.model)

    watch = ModelWatcher(pipeline, settings.model, load, settings.model_poll_s, on_outcome, folder_before)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _local_model(settings: Settings, metrics: Metrics, manifest: Manifest, engines: Sequence[Engine]) -> ServedModel:
    delay_s = settings.max_queue_delay_ms / 1e3
    on_call = _count_calls(metrics, manifest.name)
    return ServedModel(manifest, Batcher(engines, max_queue_delay_s=delay_s, on_call=on_call))


def _count_calls(metrics: Metrics, model: str) -> OnCall:
    def on_call(size: int, error: EngineError | None) -> None:
        metrics.engine_call(model, size, type(error).__name__ if error is not None else None)

    return on_call


def _announce(metrics: Metrics, model: ServedModel) -> None:
    manifest = model.manifest
    with isolated:
        metrics.set_serving(manifest.name, manifest.version, model.runtime)
    log.info("Ready: model %s %s, %d classes", manifest.name, manifest.version, len(manifest.classes))


def _add_gauges(metrics: Metrics, pipeline: Pipeline) -> None:
    admission = pipeline.admission
    metrics.add_gauge("engines_healthy", "Engines that are not lost", lambda: len(pipeline.model.batcher.healthy))
    metrics.add_gauge(
        "in_flight", "Requests without a complete response, uploads included", lambda: admission.in_flight
    )
    metrics.add_gauge(
        "active_requests",
        "Requests that use the engine or the codecs; slow uploads are not counted",
        lambda: admission.active,
    )
    metrics.add_gauge(
        "active_tensors",
        "Images and tiles of active requests that are not completed",
        lambda: admission.tensors,
    )
    metrics.add_gauge("admission_limit", "Active requests that are admitted at the moment", admission.limit)
    metrics.add_gauge(
        "estimated_drain_seconds",
        "Time until all active requests are completed, from the measured throughput",
        admission.estimated_drain_s,
    )
    metrics.add_gauge("decoded_pixels", "Pixels of all decoded images in memory", lambda: pipeline.pixels.reserved)
    metrics.add_gauge(
        "log_lines_lost", "Log lines that could not be written: full disk, closed or stalled pipe", logs.lost_lines
    )
    metrics.add_gauge("observer_failures", "Errors in metrics, traces and log lines, which failed no request", failures)
