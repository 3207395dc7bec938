"""GET /classes: what the ids mean."""

from typing import Any

from fastapi import APIRouter, Request

router = APIRouter(tags=["segmentation"])


@router.get("/classes")
async def classes(request: Request) -> dict[str, Any]:
    """Id, name and colour of every class the model knows."""
    manifest = request.app.state.pipeline.manifest
    entries = [{"id": i, "name": c.name, "color": c.color} for i, c in enumerate(manifest.classes)]
    return {"model": manifest.name, "version": manifest.version, "classes": entries}
