"""Is it alive, is it ready."""

from typing import Any

from fastapi import APIRouter, Request

from service.errors import NotReady
from service.inference.pipeline import Pipeline

router = APIRouter(tags=["health"])


@router.head("/healthz/live", include_in_schema=False)
@router.get("/healthz/live", summary="Is it alive")
async def live(request: Request) -> dict[str, str]:
    """200 while the process can still serve; 503 asks for a new one."""
    pipeline: Pipeline = request.app.state.pipeline
    if (reason := pipeline.health.why_not_alive()) is not None:
        raise NotReady(f"{reason}; the process has to be started anew.")
    return {"status": "live"}


@router.head("/healthz/ready", include_in_schema=False)
@router.get("/healthz/ready", summary="Is it ready")
@router.head("/health", include_in_schema=False)
@router.get("/health", summary="Short for /healthz/ready")
async def ready(request: Request) -> dict[str, Any]:
    """200 while the last real inference worked and new work is taken.

    `refused_model` says why a model that came to lie in the folder was not taken; the old one goes on.
    """
    pipeline: Pipeline = request.app.state.pipeline
    if (reason := await pipeline.health.why_not_ready()) is not None:
        raise NotReady(f"{reason}.")
    answer = {"status": "ready", "model": pipeline.manifest.name, "version": pipeline.manifest.version}
    refused = request.app.state.watch.refused
    return answer | ({"refused_model": refused} if refused else {})
