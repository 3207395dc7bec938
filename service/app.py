"""The application: loads a model, warms it up, serves it, drains it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service import keys, tracing
from service import manifest as manifests
from service.attempts import OnCall
from service.contracts import Engine
from service.engines.select import open_engine
from service.errors import EngineError
from service.logs import AccessLog
from service.manifest import Manifest
from service.metrics import Metrics
from service.model import ServedModel
from service.pipeline import Pipeline
from service.routes import classes, docs, health, huggingface, metrics, openapi, page, problems, segment, tensor_v2
from service.routes.door import Door
from service.routes.guard import GuardMiddleware, cors_options
from service.routes.observe import ObserveMiddleware
from service.settings import Settings
from service.swap import ModelWatch
from service.tracing import Tracer

log = logging.getLogger("alignseg.app")
Opener = Callable[[Settings, Manifest], Engine]


def create_app(
    settings: Settings | None = None,
    engine: Engine | None = None,
    manifest: Manifest | None = None,
    opener: Opener = open_engine,
    tracer: Tracer | None = None,
) -> FastAPI:
    """Build the ASGI application. What is not given is read from the environment and the model folder.

    opener: opens the engine of a model; also of one that comes to lie in the folder while serving.
    Raises SettingsError. Nothing is loaded before the lifespan starts; that raises ManifestError,
    EngineUnavailable or EngineError.
    """
    settings = settings or Settings()
    tracer = tracer or tracing.from_environment()
    figures = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        described = manifest or manifests.load(settings.model)
        model = _served(settings, figures, described, engine or opener(settings, described))
        pipeline = Pipeline(settings, model)
        try:
            await model.warm_up()
            _announce(figures, model)
            _watch_house(figures, pipeline)
            app.state.pipeline = pipeline
            async with _watching(app, settings, figures, opener):
                yield
        finally:
            if not await pipeline.drain():
                log.error("not all accepted work was answered within %s s", settings.drain_timeout_s)
            if tracer is not None:
                await asyncio.to_thread(tracer.close)

    app = FastAPI(
        title="alignseg-serve",
        summary="Semantic segmentation with AlignSeg",
        version=version("alignseg-serve"),
        lifespan=lifespan,
        responses=openapi.PROBLEMS,
        docs_url=None,  # see routes/docs.py
        redoc_url=None,
    )
    access_log = AccessLog()
    app.state.metrics = figures
    app.add_middleware(GuardMiddleware, keys=keys.load(settings))
    if settings.cors_origins.strip():
        app.add_middleware(CORSMiddleware, **cors_options(settings.cors_origins))
    app.add_middleware(ObserveMiddleware, metrics=figures, log=access_log, tracer=tracer)
    problems.install(app)
    for router in (page.router, docs.router, segment.router, classes.router, tensor_v2.router, huggingface.router):
        app.include_router(router)
    if settings.admin_port is None:
        app.include_router(health.router)
        app.include_router(metrics.router)
    if not settings.cors_origins.strip() and tracer is None:  # these need every answer to pass through them
        app.state.door = Door(app.state, figures, access_log)
    return app


def create_admin_app(app: FastAPI) -> FastAPI:
    """Health and metrics of `app`, for a port of their own."""
    title = "alignseg-serve, health and metrics"
    admin = FastAPI(title=title, version=version("alignseg-serve"), docs_url=None, redoc_url=None)
    admin.state = app.state
    admin.add_middleware(
        ObserveMiddleware, metrics=Metrics(), log=AccessLog()
    )  # its own figures would only blur the others
    problems.install(admin)
    admin.include_router(health.router)
    admin.include_router(metrics.router)
    return admin


def _served(settings: Settings, figures: Metrics, manifest: Manifest, engine: Engine) -> ServedModel:
    delay_s = settings.max_queue_delay_ms / 1e3
    return ServedModel(manifest, engine, max_queue_delay_s=delay_s, on_call=_counting(figures, manifest.name))


def _counting(figures: Metrics, model: str) -> OnCall:
    def on_call(size: int, error: EngineError | None) -> None:
        figures.batch(model, size, type(error).__name__ if error is not None else None)

    return on_call


def _announce(figures: Metrics, model: ServedModel) -> None:
    manifest = model.manifest
    figures.serving(manifest.name, manifest.version, model.engine.name)
    log.info("ready: %s %s, %d classes", manifest.name, manifest.version, len(manifest.classes))


def _watch_house(figures: Metrics, pipeline: Pipeline) -> None:
    admission = pipeline.admission
    figures.watch("in_flight", "Requests in the house, uploads included", lambda: admission.in_flight)
    figures.watch("work", "Requests that ask for the engine and the codecs", lambda: admission.work)
    figures.watch("places", "How much work is taken at the moment", admission.places)
    figures.watch("drain_seconds", "How long the work in the house will take", admission.drain_s)
    figures.watch("decoded_pixels", "Pixels of all pictures in the house", lambda: pipeline.pixels.taken)


@asynccontextmanager
async def _watching(app: FastAPI, settings: Settings, figures: Metrics, opener: Opener) -> AsyncGenerator[None, None]:
    """While inside, a changed model folder is noticed."""
    pipeline: Pipeline = app.state.pipeline

    def load(manifest: Manifest) -> ServedModel:
        return _served(settings, figures, manifest, opener(settings, manifest))

    def on_outcome(outcome: str) -> None:
        figures.swap(outcome)
        if outcome == "swapped":
            _announce(figures, pipeline.model)

    app.state.watch = watch = ModelWatch(pipeline, settings.model, load, settings.model_poll_s, on_outcome)
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
