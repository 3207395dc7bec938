"""GET /classes: what the ids mean."""

from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from service.inference.pipeline import Pipeline
from service.model_folder.manifest import ClassEntry, Manifest
from service.rendering import media_types

router = APIRouter(tags=["segmentation"])


class KnownClass(BaseModel):
    """One class: `id` is a pixel's value in every mask."""

    id: int
    name: str
    color: tuple[int, int, int] = Field(description="RGB, as in masks' palettes and overlays")


class ClassTable(BaseModel):
    """All classes of the model, by id."""

    model: str
    version: str
    classes: list[KnownClass]


_SKY: Final = KnownClass(id=0, name="sky", color=(128, 128, 128))
_TABLE: Final = ClassTable(model="alignseg-lite", version="1", classes=[_SKY])
_EXAMPLE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {media_types.JSON: {"example": _TABLE.model_dump(mode="json")}}}
}


def table_of(manifest: Manifest) -> ClassTable:
    """The classes of a model."""
    entries: tuple[ClassEntry, ...] = manifest.classes
    known = [KnownClass(id=i, name=c.name, color=c.color) for i, c in enumerate(entries)]
    return ClassTable(model=manifest.name, version=manifest.version, classes=known)


@router.head("/classes", include_in_schema=False)
@router.get("/classes", summary="What the ids mean", responses=_EXAMPLE)
async def classes(request: Request) -> ClassTable:
    """Id, name and colour of every class the model knows."""
    pipeline: Pipeline = request.app.state.pipeline
    return table_of(pipeline.manifest)
