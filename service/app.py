"""The composition root: creates the application from routes, middleware and what they share."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from importlib.util import find_spec

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.engines.selection import open_engines
from service.errors import SettingsError
from service.http import auth, cors, problems
from service.http.middleware.early_rejection import EarlyRejectionMiddleware, EarlyRejectionRule
from service.http.middleware.observability import ObservabilityMiddleware
from service.http.middleware.paths import PathMiddleware
from service.http.openapi import segment as openapi
from service.http.routes import classes, health, huggingface, kserve, sagemaker, segment, triton, web
from service.inference import lifespan
from service.inference.lifespan import EngineFactory, RemoteModelFactory
from service.inference.model_reload import FolderSnapshot
from service.model_folder.manifest import Manifest
from service.observers import isolated
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
    folder_before: FolderSnapshot | None = None,
    remote_model: RemoteModelFactory | None = None,
) -> FastAPI:
    """Create the ASGI application. Arguments that are not given are read from the environment and the model folder.

    engines: of one model, each on its own device.
    engine_factory: opens the engines of a model; also of a model that replaces the first one while serving.
    remote_model: connects to engines in other processes instead of opening them here; see ray_serve/.
    folder_before: the model folder as it was before `manifest` was read from it; see inference/model_reload.py.
    Raises SettingsError. Nothing is loaded before the lifespan starts, which raises ManifestError, EngineUnavailable or
    EngineError.
    """
    settings = settings or Settings()
    _check_grpc(settings)
    tracer = tracer or tracing.from_environment()
    metrics = Metrics()

    @asynccontextmanager
    async def while_serving(app: FastAPI) -> AsyncGenerator[None, None]:
        try:
            async with lifespan.serving(
                settings, metrics, engine_factory, engines, manifest, folder_before, remote_model
            ) as served:
                app.state.pipeline, app.state.model_watcher = served.pipeline, served.watch
                async with _grpc_port(app, settings):
                    yield
        finally:
            if tracer is not None:
                with isolated:
                    await asyncio.to_thread(tracer.close)

    app = FastAPI(
        title="alignseg-serve",
        summary="Semantic segmentation with AlignSeg",
        version=version("alignseg-serve"),
        lifespan=while_serving,
        responses=openapi.PROBLEMS,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        docs_url=None,  # see http/routes/web.py
        redoc_url=None,
        redirect_slashes=False,  # behind an HTTPS proxy it would redirect to http, and curl would show an empty body
    )
    app.state.metrics, app.state.tracer = metrics, tracer
    _add_middleware(app, settings, metrics, tracer)
    problems.install(app)
    segment.add_route(app)
    routers = (web.router, classes.router, triton.router, kserve.router, huggingface.router, sagemaker.router)
    _check_root_path(settings.root_path, (app.router, health.router, *routers))
    for router in routers:
        app.include_router(router)
    if settings.admin_port is None:
        app.include_router(health.router)
    return app


@asynccontextmanager
async def _grpc_port(app: FastAPI, settings: Settings) -> AsyncGenerator[None, None]:
    """The gRPC port, if there is one."""
    if settings.grpc_port is None:
        yield
        return
    from service.grpc_api.server import serving  # noqa: PLC0415 - needs an extra

    async with serving(app, settings) as port:
        app.state.grpc_port = port
        yield


def _check_grpc(settings: Settings) -> None:
    """Raises SettingsError for a gRPC port without the packages that it needs."""
    if settings.grpc_port is not None and not all(map(find_spec, ("grpc", "google.protobuf"))):
        raise SettingsError(
            f"ALIGNSEG_GRPC_PORT is {settings.grpc_port}, but grpcio is not installed. Install alignseg-serve[grpc], "
            "or unset it."
        )


def _check_root_path(root_path: str, routers: Iterable[APIRouter]) -> None:
    """Raises SettingsError for a path that some route begins with: nothing would say which of the two is meant."""
    paths = [str(getattr(route, "path", "")) for router in routers for route in router.routes]
    if root_path and (same := [path for path in paths if f"{path}/".startswith(f"{root_path}/")]):
        raise SettingsError(
            f"ALIGNSEG_ROOT_PATH is {root_path}, but this server has a path {same[0]}. Use another one."
        )


def create_admin_app(app: FastAPI) -> FastAPI:
    """Health and metrics of `app`, for a separate port."""
    title = "alignseg-serve, health and metrics"
    admin = FastAPI(
        title=title, version=version("alignseg-serve"), docs_url=None, redoc_url=None, redirect_slashes=False
    )
    admin.state = app.state
    unused = Metrics()  # requests to this port are not counted among those of `app`
    admin.add_middleware(PathMiddleware)
    admin.add_middleware(ObservabilityMiddleware, metrics=unused, log=AccessLog())
    problems.install(admin)
    admin.include_router(health.router)
    return admin


def _add_middleware(app: FastAPI, settings: Settings, metrics: Metrics, tracer: Tracer | None) -> None:
    """From the innermost to the outermost."""
    access_log, has_cors = AccessLog(), bool(settings.cors_origins.strip())
    keys, root_path = auth.load(settings), settings.root_path
    rule = EarlyRejectionRule(keys, app.routes, root_path)
    app.add_middleware(EarlyRejectionMiddleware, rule=rule)
    app.add_middleware(PathMiddleware, root_path=root_path)
    if keys:
        openapi.declare_keys(app)
    if has_cors:
        app.add_middleware(CORSMiddleware, **cors.options(settings.cors_origins))
    app.add_middleware(ObservabilityMiddleware, metrics=metrics, log=access_log, tracer=tracer)
    app.state.access_log = access_log
    if not has_cors and tracer is None:  # CORS and traces need every response to pass through the application
        app.state.early_rejection_rule = rule
