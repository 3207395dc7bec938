"""The Ray Serve application: ingresses that serve HTTP with create_app, and engine replicas, one per GPU.

`serve deploy deploy/ray/serve.yaml` calls `build`.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.app import create_app
from service.batching.fault_isolation import OnCall
from service.engines.selection import open_engines
from service.errors import EngineError
from service.inference.lifespan import EngineFactory
from service.inference.served_model import ServedModel
from service.model_folder.manifest import Manifest
from service.ray_serve import cluster
from service.ray_serve.engine_replica import EngineReplica
from service.ray_serve.messages import Description, tag
from service.ray_serve.remote_batcher import RemoteBatcher
from service.server.admin_port import AdminPort
from service.settings import Settings
from service.telemetry import logs

log = logging.getLogger("alignseg.ray")
NAME: Final = "alignseg"
ENGINE: Final = "Engine"
INGRESS: Final = "Ingress"
_REQUEST_ID: Final = b"x-request-id"
HEALTH_CHECK_S: Final = 5.0
DESCRIBE_CALLS_PER_REPLICA: Final = 3  # Ray Serve picks a replica at random, so ask several times to reach all
_UNLIMITED: Final = 100_000  # admission rejects with Retry-After; Ray Serve's own limit must not come first
# Images per engine replica: a batch in progress and the next one. All others wait where another replica can take them.
MAX_ONGOING_REQUESTS: Final = 32
TARGET_ONGOING_REQUESTS: Final = 16


class RayServeConfig(BaseModel):
    """The `args` of the YAML.

    settings: ALIGNSEG_* settings by their lower-case names; environment variables apply as well.
    engines, most_engines: engine replicas at the start, and at most. gpus: per replica; None: 1 if the cluster has any.
    ingress_resources: Ray resources that an ingress needs, e.g. {"codecs": 1}, to run it on nodes of its own.
    """

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any] = {}
    engines: int = 1
    most_engines: int | None = None
    gpus: float | None = None
    ingress_resources: dict[str, float] = {}


def build(args: RayServeConfig) -> serve.Application:
    """Build the application for `serve deploy` and `serve run`."""
    return application(Settings(**args.settings), args)


def application(
    settings: Settings, config: RayServeConfig, engine_factory: EngineFactory = open_engines
) -> serve.Application:
    """Return the ingress and engine deployments. engine_factory: opens a replica's engines on the GPU it sees."""
    gpus = config.gpus if config.gpus is not None else float(cluster.gpus() > 0)
    scaling = {
        "min_replicas": config.engines, "max_replicas": max(config.engines, config.most_engines or 0),
        "target_ongoing_requests": TARGET_ONGOING_REQUESTS,
    }  # fmt: skip
    common: dict[str, Any] = {
        "health_check_period_s": HEALTH_CHECK_S, "graceful_shutdown_timeout_s": settings.drain_timeout_s,
        "logging_config": {"enable_access_log": False},  # the application has its own access log
    }  # fmt: skip
    engine = serve.deployment(
        name=ENGINE, autoscaling_config=scaling, max_ongoing_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={"num_gpus": gpus, "num_cpus": 1}, **common,
    )(EngineDeployment)  # fmt: skip
    ingress = serve.deployment(
        name=INGRESS, max_ongoing_requests=_UNLIMITED,
        ray_actor_options={"num_cpus": 1, "resources": config.ingress_resources}, **common,
    )(serve.ingress(_app_builder(settings))(Ingress))  # fmt: skip
    app: serve.Application = ingress.bind(engine.bind(settings, engine_factory))
    return app


class EngineDeployment(EngineReplica):
    """An EngineReplica that is started when Ray Serve creates it."""

    async def __init__(self, settings: Settings, engine_factory: EngineFactory) -> None:  # type: ignore[misc]  # awaited by Ray Serve
        _configure_logs(settings)
        super().__init__(settings, engine_factory)
        await self.start()

    async def __del__(self) -> None:
        """Called and awaited by Ray Serve once no request is left."""
        await self.close()


class WithoutRequestId:
    """Removes X-Request-Id from responses: Ray Serve's proxy adds the same header, and it must not occur twice."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process one request."""

        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0] != _REQUEST_ID]
            await send(message)

        await self._app(scope, receive, send_without_id)


class Ingress:
    """The HTTP application, with engines in other processes."""

    def __init__(self, engine: "DeploymentHandle[Any]") -> None:
        """engine: not used, the handle is looked up by name; as an argument it makes Ray Serve start the engines."""
        self._admin: AdminPort | None = None

    async def check_health(self) -> None:
        """Called by Ray Serve every HEALTH_CHECK_S; also updates the number of engine replicas.

        If the settings have an admin port, health and metrics of this ingress are served there: through Ray Serve's
        proxy, Prometheus would reach a different ingress each time. So there can be one ingress per node.
        """
        pipeline = self.app.state.pipeline  # type: ignore[attr-defined]  # set by serve.ingress
        if self._admin is None and pipeline.settings.admin_port is not None:
            self._admin = AdminPort(self.app, pipeline.settings)  # type: ignore[attr-defined]
            await self._admin.open()
        if self._admin is not None:
            await self._admin.on_tick(0)
        pipeline.model.batcher.replicas = await asyncio.to_thread(running_engines)
        pipeline.update_limits()

    async def stop_admitting(self) -> None:
        """Become not ready and admit no requests; admitted ones are completed."""
        self.app.state.pipeline.stop_admitting()  # type: ignore[attr-defined]

    async def in_flight(self) -> int:
        """Return the number of requests without a complete response."""
        return int(self.app.state.pipeline.admission.in_flight)  # type: ignore[attr-defined]


def running_engines() -> int:
    """Return the number of engine replicas that Ray Serve considers healthy."""
    deployment = serve.status().applications[serve.get_replica_context().app_name].deployments[ENGINE]
    states: dict[Any, int] = deployment.replica_states  # the keys are strings, although annotated otherwise
    return states.get("RUNNING", 0)


def _app_builder(settings: Settings) -> Callable[[], FastAPI]:
    """Return a function that builds the application in the replica's process."""

    def build_app() -> FastAPI:
        _configure_logs(settings)
        app = create_app(settings, remote_model=_remote_model)
        app.add_middleware(WithoutRequestId)
        return app

    return build_app


def _configure_logs(settings: Settings) -> None:
    # Ray Serve has replaced sys.stderr by its own log. Not buffered: nothing here flushes ten times a second.
    logs.configure(settings.log, sys.__stderr__, buffered=False)


def _remote_model(manifest: Manifest, on_call: OnCall) -> ServedModel:
    """Return the model once all engine replicas have it. Blocks; raises EngineError if they refuse it."""
    handle: DeploymentHandle[Any] = serve.get_deployment_handle(ENGINE)
    calls = 0
    while calls < DESCRIBE_CALLS_PER_REPLICA * max(1, running_engines()):
        description: Description = handle.describe.remote().result()
        calls += 1
        if tag(manifest) not in description.models:
            if description.refused is not None:
                raise EngineError(f"The engine replicas refused the model: {description.refused}")
            calls = 0
            time.sleep(0.1)
    batcher = RemoteBatcher(handle, manifest, description, on_call)
    batcher.replicas = running_engines()
    return ServedModel(manifest, batcher)
