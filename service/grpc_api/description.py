"""Every method but ModelInfer: health, metadata, configuration, statistics, repository index."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from starlette.exceptions import HTTPException

from service.errors import BadRequest
from service.grpc_api.calls import Call, NotFound, Respond
from service.grpc_api.messages import message, serialized
from service.http import triton_model
from service.inference.pipeline import Pipeline
from service.telemetry.metrics import Metrics

Describe = Callable[[Pipeline, Any], dict[str, Any]]


def require_model(pipeline: Pipeline, name: str, model_version: str) -> None:
    """Raises NotFound for another model."""
    try:
        triton_model.require_model(pipeline, name, model_version)
    except HTTPException as error:
        raise NotFound(f"{name[:80]!r} {model_version[:80]}: {error.detail}.") from None


async def server_live(call: Call) -> bytes:
    """Liveness, as /healthz/live."""
    await call.read()
    return serialized("ServerLiveResponse", {"live": call.pipeline.health.why_not_alive() is None})


async def server_ready(call: Call) -> bytes:
    """Readiness, as /healthz/ready."""
    await call.read()
    return serialized("ServerReadyResponse", {"ready": await call.pipeline.health.why_not_ready() is None})


async def model_ready(call: Call) -> bytes:
    """Whether this model accepts requests; false for any other."""
    request = _parsed("ModelReadyRequest", await call.read())
    try:
        require_model(call.pipeline, request.name, request.version)
    except NotFound:
        return serialized("ModelReadyResponse", {"ready": False})
    return serialized("ModelReadyResponse", {"ready": await call.pipeline.health.why_not_ready() is None})


def describe(method: str, members: Describe) -> Respond:
    """A method whose response has the members that `members(pipeline, request)` returns."""

    async def respond(call: Call) -> bytes:
        request = _parsed(f"{method}Request", await call.read())
        return serialized(f"{method}Response", members(call.pipeline, request))

    return respond


def descriptions(metrics: Metrics) -> dict[str, Respond]:
    """By the method's name."""

    def server_metadata(_pipeline: Pipeline, _request: Any) -> dict[str, Any]:
        extensions = list(triton_model.EXTENSIONS)
        return {"name": "alignseg-serve", "version": version("alignseg-serve"), "extensions": extensions}

    def metadata(pipeline: Pipeline, request: Any) -> dict[str, Any]:
        require_model(pipeline, request.name, request.version)
        return triton_model.metadata(pipeline)

    def config(pipeline: Pipeline, request: Any) -> dict[str, Any]:
        require_model(pipeline, request.name, request.version)
        return {"config": triton_model.config(pipeline)}

    def statistics(pipeline: Pipeline, request: Any) -> dict[str, Any]:
        if request.name:  # empty: of all models
            require_model(pipeline, request.name, request.version)
        return {"model_stats": [triton_model.statistics(pipeline, metrics)]}

    def repository_index(pipeline: Pipeline, _request: Any) -> dict[str, Any]:
        return {"models": triton_model.repository_index(pipeline)}

    members = {
        "ServerMetadata": server_metadata,
        "ModelMetadata": metadata,
        "ModelConfig": config,
        "ModelStatistics": statistics,
        "RepositoryIndex": repository_index,
    }
    return {method: describe(method, function) for method, function in members.items()}


async def model_control(call: Call) -> bytes:
    """RepositoryModelLoad and RepositoryModelUnload. Raises BadRequest."""
    await call.read()
    raise BadRequest(triton_model.MODEL_CONTROL)


def _parsed(name: str, body: bytes) -> Any:
    try:
        return message(name).FromString(body)
    except Exception as error:  # protobuf's DecodeError, and UnicodeDecodeError
        raise BadRequest(f"Not a {name}: {error}.") from None
