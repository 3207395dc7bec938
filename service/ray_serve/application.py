"""The fleet as a Ray Serve application: ways in that answer HTTP by create_app, and engines, one a GPU.

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
from service.ray_serve.engine_replica import Replica
from service.ray_serve.messages import Description, tag
from service.ray_serve.remote_batcher import RemoteBatcher
from service.server.admin_port import AdminPort
from service.settings import Settings
from service.telemetry import logs

log = logging.getLogger("alignseg.fleet")
NAME: Final = "alignseg"
ENGINE: Final = "Engine"
WAY_IN: Final = "Ingress"
_REQUEST_ID: Final = b"x-request-id"
HEALTH_S: Final = 5.0
ASKED_PER_REPLICA: Final = 3  # so often is asked for a new model: which replica answers is chance
_MANY: Final = 100_000  # admission says who is refused, with a word on when to come back; Serve must not be quicker
# Pictures at a replica: a batch in each lane and the next; the others wait where they can still go elsewhere.
ONGOING: Final = 32
TARGET_ONGOING: Final = 16


class RayServeConfig(BaseModel):
    """What `args` of the YAML may say.

    settings: as ALIGNSEG_*, by their names in small letters; the environment counts as well.
    engines, most_engines: replicas to begin with, and at most. gpus: of each; None: 1 where the cluster has any.
    ingress_resources: Ray's resources that an ingress asks for, such as {"codecs": 1}, to decode on nodes of its own.
    """

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any] = {}
    engines: int = 1
    most_engines: int | None = None
    gpus: float | None = None
    ingress_resources: dict[str, float] = {}


def build(args: RayServeConfig) -> serve.Application:
    """For `serve deploy` and `serve run`."""
    return application(Settings(**args.settings), args)


def application(
    settings: Settings, fleet: RayServeConfig, engine_factory: EngineFactory = open_engines
) -> serve.Application:
    """A way in and `fleet.engines` engines. opener: opens the engines of one replica, on the GPU that it sees."""
    gpus = fleet.gpus if fleet.gpus is not None else float(cluster.gpus() > 0)
    scaling = {
        "min_replicas": fleet.engines, "max_replicas": max(fleet.engines, fleet.most_engines or 0),
        "target_ongoing_requests": TARGET_ONGOING,
    }  # fmt: skip
    common: dict[str, Any] = {
        "health_check_period_s": HEALTH_S, "graceful_shutdown_timeout_s": settings.drain_timeout_s,
        "logging_config": {"enable_access_log": False},  # ours has a line a request
    }  # fmt: skip
    engine = serve.deployment(
        name=ENGINE, autoscaling_config=scaling, max_ongoing_requests=ONGOING,
        ray_actor_options={"num_gpus": gpus, "num_cpus": 1}, **common,
    )(EngineReplica)  # fmt: skip
    way_in = serve.deployment(
        name=WAY_IN, max_ongoing_requests=_MANY,
        ray_actor_options={"num_cpus": 1, "resources": fleet.ingress_resources}, **common,
    )(serve.ingress(_asgi(settings))(Ingress))  # fmt: skip
    app: serve.Application = way_in.bind(engine.bind(settings, engine_factory))
    return app


class EngineReplica(Replica):
    """A Replica that is loaded when Serve creates it."""

    async def __init__(self, settings: Settings, engine_factory: EngineFactory) -> None:  # type: ignore[misc]  # Serve awaits it
        logs.configure(settings.log, sys.__stderr__)  # Serve has put its own log into the place of sys.stderr
        super().__init__(settings, engine_factory)
        await self.start()

    async def __del__(self) -> None:
        """Called by Serve, and awaited, once no request is left."""
        await self.close()


class WithoutRequestId:
    """Serve's proxy hands a request's id on, and puts it into the answer itself: it must not be there twice."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Outermost."""

        async def without(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0] != _REQUEST_ID]
            await send(message)

        await self._app(scope, receive, without)


class Ingress:
    """An HTTP application around engines that are elsewhere."""

    def __init__(self, engine: "DeploymentHandle[Any]") -> None:
        """engine: looked up by its name as well; as an argument it makes Serve start the engines."""
        self._admin: AdminPort | None = None

    async def check_health(self) -> None:
        """Called by Serve every HEALTH_S: a moment to see how many replicas there are.

        Health and metrics of this way in have a port of their own, if the settings name one: through Serve's proxy
        Prometheus would meet another way in each time. So there may be one way in a node; see deploy/ray.
        """
        pipeline = self.app.state.pipeline  # type: ignore[attr-defined]  # of serve.ingress
        if self._admin is None and pipeline.settings.admin_port is not None:
            self._admin = AdminPort(self.app, pipeline.settings)  # type: ignore[attr-defined]
            await self._admin.open()
        if self._admin is not None:
            await self._admin.on_tick(0)
        pipeline.model.batcher.replicas = await asyncio.to_thread(running_engines)
        pipeline.refit()

    async def stop_admitting(self) -> None:
        """Not ready, no new work; what was accepted goes on."""
        self.app.state.pipeline.stop_admitting()  # type: ignore[attr-defined]

    async def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return int(self.app.state.pipeline.admission.in_flight)  # type: ignore[attr-defined]


def running_engines() -> int:
    """Replicas that Serve knows to be well."""
    deployment = serve.status().applications[serve.get_replica_context().app_name].deployments[ENGINE]
    states: dict[Any, int] = deployment.replica_states  # strings, though it says otherwise
    return states.get("RUNNING", 0)


def _asgi(settings: Settings) -> Callable[[], FastAPI]:
    """Builds the application where the replica is."""

    def build_app() -> FastAPI:
        logs.configure(settings.log, sys.__stderr__)
        app = create_app(settings, reach=_reach)
        app.add_middleware(WithoutRequestId)
        return app

    return build_app


def _reach(manifest: Manifest, on_call: OnCall) -> ServedModel:
    """The model at the engines, once all of them have it. Blocks; raises EngineError when they refuse it."""
    handle: DeploymentHandle[Any] = serve.get_deployment_handle(ENGINE)
    asked = 0
    while asked < ASKED_PER_REPLICA * max(1, running_engines()):
        described: Description = handle.describe.remote().result()
        asked += 1
        if tag(manifest) not in described.models:
            if described.refused is not None:
                raise EngineError(f"the engines refused it: {described.refused}")
            asked = 0
            time.sleep(0.1)
    remote = RemoteBatcher(handle, manifest, described, on_call)
    remote.replicas = running_engines()
    return ServedModel(manifest, remote)
