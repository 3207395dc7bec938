"""The application: routes, the layers around them, and what they share."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.engines.selection import open_engines
from service.http import auth, problems
from service.http.middleware.early_rejection import EntryRule, GuardMiddleware, cors_options
from service.http.middleware.observability import ObserveMiddleware
from service.http.openapi import segment as openapi
from service.http.routes import classes, docs, health, huggingface, kserve, metrics, segment, web
from service.inference import lifespan
from service.inference.lifespan import EngineFactory, RemoteModelFactory
from service.inference.model_reload import FolderSnapshot
from service.model_folder.manifest import Manifest
from service.settings import Settings
from service.telemetry import tracing
from service.telemetry.access_log import AccessLog
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Tracer
from service.types import Engine


def create_app(
    settings: Settings | None = None,
    engines: Sequence[Engine] | None = None,
    manifest: Manifest | None = None,
    engine_factory: EngineFactory = open_engines,
    tracer: Tracer | None = None,
    seen: FolderSnapshot | None = None,
    reach: RemoteModelFactory | None = None,
) -> FastAPI:
    """Build the ASGI application. What is not given is read from the environment and the model folder.

    engines: of one model, each on a device of its own.
    opener: opens the engines of a model; also of one that comes to lie in the folder while serving.
    reach: finds a model's engines elsewhere, instead of opening them here; see fleet/.
    seen: the model folder as it was before `manifest` was read from it; see swap.look.
    Raises SettingsError. Nothing is loaded before the lifespan starts; that raises ManifestError,
    EngineUnavailable or EngineError.
    """
    settings = settings or Settings()
    tracer = tracer or tracing.from_environment()
    figures = Metrics()

    @asynccontextmanager
    async def while_serving(app: FastAPI) -> AsyncGenerator[None, None]:
        try:
            async with lifespan.serving(settings, figures, engine_factory, engines, manifest, seen, reach) as served:
                app.state.pipeline, app.state.watch = served.pipeline, served.watch
                yield
        finally:
            if tracer is not None:
                await asyncio.to_thread(tracer.close)

    app = FastAPI(
        title="alignseg-serve",
        summary="Semantic segmentation with AlignSeg",
        version=version("alignseg-serve"),
        lifespan=while_serving,
        responses=openapi.PROBLEMS,
        docs_url=None,  # see routes/docs.py
        redoc_url=None,
        redirect_slashes=False,  # to http, behind a proxy that speaks https; and curl shows nothing of it
    )
    app.state.metrics = figures
    _add_layers(app, settings, figures, tracer)
    problems.install(app)
    app.router.routes.append(segment.Express())
    for router in (web.router, docs.router, segment.router, classes.router, kserve.router, huggingface.router):
        app.include_router(router)
    if settings.admin_port is None:
        _add_health(app)
    return app


def create_admin_app(app: FastAPI) -> FastAPI:
    """Health and metrics of `app`, for a port of their own."""
    title = "alignseg-serve, health and metrics"
    admin = FastAPI(
        title=title, version=version("alignseg-serve"), docs_url=None, redoc_url=None, redirect_slashes=False
    )
    admin.state = app.state
    own = Metrics()  # thrown away: they would only blur those of `app`
    admin.add_middleware(ObserveMiddleware, metrics=own, log=AccessLog())
    problems.install(admin)
    _add_health(admin)
    return admin


def _add_layers(app: FastAPI, settings: Settings, figures: Metrics, tracer: Tracer | None) -> None:
    """From the inside out."""
    access_log, cors = AccessLog(), bool(settings.cors_origins.strip())
    known = auth.load(settings)
    rule = EntryRule(known, app.routes)
    app.add_middleware(GuardMiddleware, rule=rule)
    if known:
        openapi.declare_keys(app)
    if cors:
        app.add_middleware(CORSMiddleware, **cors_options(settings.cors_origins))
    app.add_middleware(ObserveMiddleware, metrics=figures, log=access_log, tracer=tracer)
    app.state.access_log = access_log
    if not cors and tracer is None:  # these two need every response to pass through the application
        app.state.entry_rule = rule


def _add_health(app: FastAPI) -> None:
    app.include_router(health.router)
    app.include_router(metrics.router)
