"""What /docs says of POST /segment. Its example is made by the code that makes the answers."""

import time
from typing import Any, Final, Literal

import numpy as np
import orjson
from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field

from service.errors import Overloaded
from service.http.query_params import PARAMETERS, Parameter
from service.http.security_headers import PROBES
from service.model_folder.manifest import ClassEntry, Manifest
from service.rendering import media_types
from service.rendering.json_response import render_json
from service.rendering.options import RenderOptions
from service.rendering.segmentation import Segmentation


class Strict(BaseModel):
    """Nothing that is not told here."""

    model_config = ConfigDict(extra="forbid")


class Rle(Strict):
    """A mask as COCO's compressed run-length encoding: pycocotools.mask.decode reads it."""

    size: tuple[int, int] = Field(description="[height, width]")
    counts: str


class Polygons(Strict):
    """A mask as GeoJSON MultiPolygon (RFC 7946) in pixels: [x, y] of pixel corners, y down; filling it is exact."""

    type: Literal["MultiPolygon"]
    coordinates: list[list[list[tuple[int, int]]]]


class ClassShare(Strict):
    """One class as it lies in the picture."""

    id: int
    name: str
    color: tuple[int, int, int] = Field(description="RGB, as in the mask's palette")
    pixels: int
    fraction: float = Field(description="share of the picture's pixels, 0 to 1")
    box: tuple[int, int, int, int] = Field(description="[x, y, width, height] around all pixels of the class")
    confidence: float | None = Field(None, description="?confidence=true: mean probability of its pixels, 0 to 1")
    rle: Rle | None = Field(None, description="?masks=rle")
    polygons: Polygons | None = Field(None, description="?masks=polygons")
    file: str | None = Field(None, description="in application/zip and multipart/mixed: the PNG of this class")


class SegmentAnswer(Strict):
    """The answer in JSON. Every PNG is base64 and has the picture's own size."""

    model: str
    version: str
    width: int
    height: int
    unselected_id: int | None = Field(None, description="?classes=: the id of all pixels of other classes")
    tiles: int | None = Field(None, description="?tile=true: how many it took")
    classes: list[ClassShare] = Field(description="the classes that are present, by id")
    mask: str | None = Field(None, description="indexed PNG: a pixel's index is its class id, the palette the colours")
    confidence: str | None = Field(None, description="?confidence=true: 8-bit grey PNG, 255 times the probability")
    overlay: str | None = Field(None, description="RGB PNG: the colours blended over the picture")
    class_masks: dict[str, str] | None = Field(None, description="by class name, 8-bit PNG: 255 in the class, else 0")
    class_overlays: dict[str, str] | None = Field(None, description="by class name, PNG: its colour, else transparent")
    files: list[str] | None = Field(None, description="in application/zip and multipart/mixed: the other files")
    timing_ms: dict[str, float] = Field(description="decode, queue, infer, encode")


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str = Field(description="what was got, what is expected, how to mend it")
    request_id: str
    retry_after_s: float | None = Field(None, description="with 429 and 503: as Retry-After, but exact")


class FailedPicture(Strict):
    """One of several pictures, not answered; the others are."""

    problem: Problem


class SeveralAnswers(Strict):
    """The answer to a request with several pictures, in their order."""

    results: list[SegmentAnswer | FailedPicture]


def _example(wishes: RenderOptions) -> Any:
    """A real answer on a street of 12x8 pixels: sky above, a building to the left, road below."""
    classes = (("sky", (128, 128, 128)), ("building", (128, 0, 0)), ("road", (128, 64, 128)))
    model = Manifest.model_construct(
        name="alignseg-lite", version="1", classes=tuple(ClassEntry(name=n, color=c) for n, c in classes)
    )
    ids = np.zeros((8, 12), dtype=np.uint8)
    ids[1:5, :4], ids[5:] = 1, 2
    timing = {"decode": 3.1, "queue": 0.05, "infer": 38.4}
    seg = Segmentation(model, np.zeros((8, 12, 3), dtype=np.uint8), ids, timing, time.perf_counter())
    return orjson.loads(render_json(seg, wishes))


def _examples() -> dict[str, Any]:
    return {
        "mask as PNG": {"value": _example(RenderOptions())},
        "masks=rle": {"value": _example(RenderOptions(masks="rle"))},
        "masks=polygons&classes=building": {"value": _example(RenderOptions(masks="polygons", classes=("building",)))},
        "several pictures": {
            "value": {"results": [_example(RenderOptions(masks="none")), {"problem": _PROBLEM_EXAMPLE}]}
        },
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    told = {"name": parameter.name, "in": "query", "description": parameter.description, "schema": parameter.schema}
    return {**told, "style": "form", "explode": False} if parameter.schema["type"] == "array" else told


_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_PICTURE: Final = {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, BMP or TIFF"}
_FORM: Final = {
    "schema": {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "array", "items": _PICTURE, "minItems": 1}},
    }
}
_PROBLEM_EXAMPLE: Final = {
    "type": f"urn:alignseg:problem:{Overloaded.slug}",
    "title": Overloaded.title,
    "status": Overloaded.status,
    "detail": "64 requests are in flight, at most 64 are taken (ALIGNSEG_MAX_IN_FLIGHT). Come back after Retry-After.",
    "request_id": "9b1f0a6c2f1d4d0e8f3a5b7c9d1e2f30",
    "retry_after_s": 1.873,
}

PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "Any error, as RFC 9457 problem",
        "content": {"application/problem+json": {"schema": Problem.model_json_schema(), "example": _PROBLEM_EXAMPLE}},
    }
}

_KEYS: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "for browsers: any name, the key as password"},
}


def declare_keys(app: FastAPI) -> None:
    """Say in the document that a key is needed, and the three ways to send it; what machines probe needs none."""
    describe = app.openapi

    def with_keys() -> dict[str, Any]:
        document = describe()
        document["components"]["securitySchemes"] = _KEYS
        document["security"] = [{name: []} for name in _KEYS]
        for path in PROBES & document["paths"].keys():
            for operation in document["paths"][path].values():
                operation["security"] = []
        return document

    app.openapi = with_keys  # type: ignore[method-assign]  # FastAPI's own way to extend it


SEGMENT: Final[dict[str, Any]] = {
    "summary": "The class of every pixel of a picture",
    "response_class": Response,
    "responses": {
        200: {
            "model": SegmentAnswer | SeveralAnswers,
            "description": "The class map, in the form that Accept asks for",
            "content": {**dict.fromkeys(media_types.ALL, _BINARY), media_types.JSON: {"examples": _examples()}},
        }
    },
    "openapi_extra": {
        "parameters": [_parameter(parameter) for parameter in PARAMETERS.values()],
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": _FORM, "image/*": _BINARY, "application/octet-stream": _BINARY},
        },
    },
}
