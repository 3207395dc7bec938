"""Is it alive, is it ready, what does it know."""

from typing import Any

from fastapi import APIRouter, Request

from service.errors import NotReady
from service.pipeline import Pipeline

router = APIRouter(tags=["health"])


@router.get("/healthz/live")
async def live(request: Request) -> dict[str, str]:
    """200 while the process can still serve; 503 asks for a new one."""
    pipeline: Pipeline = request.app.state.pipeline
    if pipeline.lost:
        raise NotReady("the engine is lost; the process has to be started anew.")
    return {"status": "live"}


@router.get("/healthz/ready")
@router.get("/health", summary="Short for /healthz/ready")
async def ready(request: Request) -> dict[str, str]:
    """200 while the last real inference worked and new work is taken."""
    pipeline: Pipeline = request.app.state.pipeline
    if (reason := await pipeline.why_not_ready()) is not None:
        raise NotReady(f"{reason}.")
    return {"status": "ready", "model": pipeline.manifest.name, "version": pipeline.manifest.version}


@router.get("/classes", tags=["segmentation"])
async def classes(request: Request) -> dict[str, Any]:
    """Id, name and colour of every class the model knows."""
    manifest = request.app.state.pipeline.manifest
    entries = [{"id": i, "name": c.name, "color": c.color} for i, c in enumerate(manifest.classes)]
    return {"model": manifest.name, "version": manifest.version, "classes": entries}
