"""GET /classes: the id, name and colour of every class."""

from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from service.inference.pipeline import Pipeline
from service.model_folder.manifest import Manifest
from service.rendering import media_types

router = APIRouter(tags=["segmentation"])


class ModelClass(BaseModel):
    """One class: `id` is a pixel's value in every mask."""

    id: int
    name: str
    color: tuple[int, int, int] = Field(description="RGB, as in the palettes of masks and in overlays")


class ClassTable(BaseModel):
    """All classes of the model, by id."""

    model: str
    version: str
    classes: list[ModelClass]


_SKY: Final = ModelClass(id=0, name="sky", color=(128, 128, 128))
_TABLE: Final = ClassTable(model="alignseg-lite", version="1", classes=[_SKY])
_EXAMPLE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {media_types.JSON: {"example": _TABLE.model_dump(mode="json")}}}
}


def class_table(manifest: Manifest) -> ClassTable:
    """The classes of a model."""
    classes = [ModelClass(id=i, name=entry.name, color=entry.color) for i, entry in enumerate(manifest.classes)]
    return ClassTable(model=manifest.name, version=manifest.version, classes=classes)


@router.head("/classes", include_in_schema=False)
@router.get("/classes", summary="All classes of the model", responses=_EXAMPLE)
async def classes(request: Request) -> ClassTable:
    """Id, name and colour of every class of the model."""
    pipeline: Pipeline = request.app.state.pipeline
    return class_table(pipeline.manifest)
