"""Triton's extensions of the Open Inference Protocol over REST: configuration, statistics, repository index.

Include this router before kserve's, whose /models/{model} also matches /models/stats.
"""

from typing import Any

from fastapi import APIRouter, Request

from service.errors import BadRequest
from service.http import triton_model
from service.http.openapi import kserve
from service.inference.pipeline import Pipeline

router = APIRouter(prefix="/v2", tags=["open inference protocol"], responses=kserve.ERRORS)


@router.get("/models/{model}/config", summary="Model configuration")
@router.get("/models/{model}/versions/{version}/config", include_in_schema=False)
async def config(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
    """Triton's model configuration, as perf_analyzer reads it."""
    triton_model.require_model(_pipeline(request), model, version)
    return triton_model.config(_pipeline(request))


@router.get("/models/stats", summary="Statistics of all models")
async def all_stats(request: Request) -> dict[str, Any]:
    """Counts and durations since the start."""
    return {"model_stats": [triton_model.statistics(_pipeline(request), request.app.state.metrics)]}


@router.get("/models/{model}/stats", summary="Statistics of the model")
@router.get("/models/{model}/versions/{version}/stats", include_in_schema=False)
async def stats(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
    """The same of one model."""
    triton_model.require_model(_pipeline(request), model, version)
    return await all_stats(request)


@router.post("/repository/index", summary="Models of this server")
async def repository_index(request: Request) -> list[dict[str, str]]:
    """Name, version and state."""
    return triton_model.repository_index(_pipeline(request))


@router.post("/repository/models/{model}/load", include_in_schema=False)
@router.post("/repository/models/{model}/unload", include_in_schema=False)
async def model_control(model: str) -> None:
    """Not supported."""
    raise BadRequest(triton_model.MODEL_CONTROL)


def _pipeline(request: Request) -> Pipeline:
    pipeline: Pipeline = request.app.state.pipeline
    return pipeline
