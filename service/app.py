"""The application: loads a model, warms it up, serves it, drains it."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from service import manifest as manifests
from service.contracts import Engine
from service.engines.select import open_engine
from service.manifest import Manifest
from service.pipeline import Pipeline
from service.routes import health, openapi, page, problems, segment
from service.routes.request_id import RequestIdMiddleware
from service.settings import Settings

log = logging.getLogger("alignseg.app")


def create_app(
    settings: Settings | None = None, engine: Engine | None = None, manifest: Manifest | None = None
) -> FastAPI:
    """Build the ASGI application. What is not given is read from the environment and the model folder.

    Nothing is loaded before the lifespan starts; that raises ManifestError, EngineUnavailable or EngineError.
    """
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        model = manifest or manifests.load(settings.model)
        pipeline = Pipeline(settings, model, engine or open_engine(settings, model))
        try:
            await pipeline.warm_up()
            app.state.pipeline = pipeline
            log.info("ready: %s %s, %d classes", model.name, model.version, len(model.classes))
            yield
        finally:
            if not await pipeline.drain():
                log.error("not all accepted work was answered within %s s", settings.drain_timeout_s)

    app = FastAPI(
        title="alignseg-serve",
        summary="Semantic segmentation with AlignSeg",
        version=version("alignseg-serve"),
        lifespan=lifespan,
        responses=openapi.PROBLEMS,
    )
    app.add_middleware(RequestIdMiddleware)
    problems.install(app)
    for router in (page.router, segment.router, health.router):
        app.include_router(router)
    return app
