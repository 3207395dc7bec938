"""OpenAPI description of POST /segment. Its examples are made by the code that renders responses."""

import time
from typing import Any, Final, Literal

import numpy as np
import orjson
from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field

from service.errors import Overloaded
from service.http.query_params import PARAMETERS, Parameter
from service.http.security_headers import PROBE_PATHS
from service.model_folder.manifest import ClassEntry, Manifest
from service.rendering import media_types
from service.rendering.json_response import render_json
from service.rendering.options import RenderOptions
from service.rendering.segmentation import Segmentation


class Strict(BaseModel):
    """Unknown members are errors."""

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
    """One class in the image."""

    id: int
    name: str
    color: tuple[int, int, int] = Field(description="RGB, as in the mask's palette")
    pixels: int
    fraction: float = Field(description="fraction of the image's pixels, 0 to 1")
    box: tuple[int, int, int, int] = Field(description="[x, y, width, height] around all pixels of the class")
    confidence: float | None = Field(None, description="?confidence=true: mean probability of its pixels, 0 to 1")
    rle: Rle | None = Field(None, description="?masks=rle")
    polygons: Polygons | None = Field(None, description="?masks=polygons")
    file: str | None = Field(None, description="in application/zip and multipart/mixed: the PNG of this class")


class SegmentResponse(Strict):
    """The response in JSON. Every PNG is base64 and has the image's own size."""

    model: str
    version: str
    width: int
    height: int
    unselected_id: int | None = Field(None, description="?classes=: the id of pixels of all other classes")
    input_size: tuple[int, int] = Field(
        description="[width, height] of the image as the model saw it, all tiles together"
    )
    tiles: int | None = Field(None, description="the number of tiles, if there are several or ?tile= asks for them")
    classes: list[ClassShare] = Field(description="the classes present in the image, by id")
    mask: str | None = Field(
        None, description="indexed PNG: a pixel's index is its class id; the palette has the colours"
    )
    confidence: str | None = Field(None, description="?confidence=true: 8-bit grey PNG, 255 times the probability")
    overlay: str | None = Field(None, description="RGB PNG: the colours blended over the image")
    class_masks: dict[str, str] | None = Field(
        None, description="by class name, 8-bit PNG: 255 in the class, otherwise 0"
    )
    class_overlays: dict[str, str] | None = Field(
        None, description="by class name, PNG: its colour, otherwise transparent"
    )
    files: list[str] | None = Field(None, description="in application/zip and multipart/mixed: the other files")
    timing_ms: dict[str, float] = Field(description="decode, queue, infer, encode")


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str = Field(description="what was received, what was expected, how to fix it")
    request_id: str
    retry_after_s: float | None = Field(None, description="with 429 and 503: like Retry-After, but exact")


_INDEX: Final = Field(description="the position of the image in the request, from 0")
_FILENAME: Final = Field(None, description="the name of the image's file, if the client sent one")


class SegmentedImage(SegmentResponse):
    """One of several images."""

    index: int = _INDEX
    filename: str | None = _FILENAME


class FailedImage(Strict):
    """One of several images that failed; the others are not affected."""

    index: int = _INDEX
    filename: str | None = _FILENAME
    problem: Problem


class MultiImageResponse(Strict):
    """The response to a request with several images, in their order."""

    results: list[SegmentedImage | FailedImage]


def _example(options: RenderOptions) -> Any:
    """A real response for an image of 12x8 pixels: sky above, a building to the left, road below."""
    classes = (("sky", (128, 128, 128)), ("building", (128, 0, 0)), ("road", (128, 64, 128)))
    model = Manifest.model_construct(
        name="alignseg-lite", version="1", classes=tuple(ClassEntry(name=n, color=c) for n, c in classes)
    )
    ids = np.zeros((8, 12), dtype=np.uint8)
    ids[1:5, :4], ids[5:] = 1, 2
    timing = {"decode": 3.1, "queue": 0.05, "infer": 38.4}
    pixels = np.zeros((8, 12, 3), dtype=np.uint8)
    seg = Segmentation(model, pixels, ids, timing, time.perf_counter(), input_size=(321, 481))
    return orjson.loads(render_json(seg, options))


def _examples() -> dict[str, Any]:
    return {
        "mask as PNG": {"value": _example(RenderOptions())},
        "masks=rle": {"value": _example(RenderOptions(masks="rle"))},
        "masks=polygons&classes=building": {"value": _example(RenderOptions(masks="polygons", classes=("building",)))},
        "several images": {
            "value": {
                "results": [
                    {"index": 0, "filename": "a.jpg"} | _example(RenderOptions(masks="none")),
                    {"index": 1, "filename": "b.jpg", "problem": _PROBLEM_EXAMPLE},
                ]
            }
        },
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    entry = {"name": parameter.name, "in": "query", "description": parameter.description, "schema": parameter.schema}
    return {**entry, "style": "form", "explode": False} if parameter.schema["type"] == "array" else entry


_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_IMAGE: Final = {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, AVIF, BMP or TIFF"}
_FORM: Final = {
    "schema": {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "array", "items": _IMAGE, "minItems": 1}},
    }
}
_JSON: Final = {
    "schema": {
        "type": "object",
        "required": ["image"],
        "properties": {
            "image": {"type": "string", "format": "byte", "description": "an image file in base64, or as a data URL"},
            **{parameter.name: parameter.schema for parameter in PARAMETERS.values()},
        },
        "additionalProperties": False,
    }
}
_PROBLEM_EXAMPLE: Final = {
    "type": f"urn:alignseg:problem:{Overloaded.slug}",
    "title": Overloaded.title,
    "status": Overloaded.status,
    "detail": "Server overloaded: 64 requests in flight, limit 64 (ALIGNSEG_MAX_IN_FLIGHT). Retry after the delay in "
    "Retry-After.",
    "request_id": "9b1f0a6c2f1d4d0e8f3a5b7c9d1e2f30",
    "retry_after_s": 1.873,
}

PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "Any error, as an RFC 9457 problem document",
        "content": {"application/problem+json": {"schema": Problem.model_json_schema(), "example": _PROBLEM_EXAMPLE}},
    }
}

_KEYS: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "for browsers: any user name, the key as password"},
}


def declare_keys(app: FastAPI) -> None:
    """Document that an API key is required, and the three ways to send it. The probe paths need none."""
    openapi = app.openapi

    def with_keys() -> dict[str, Any]:
        document = openapi()
        document["components"]["securitySchemes"] = _KEYS
        document["security"] = [{name: []} for name in _KEYS]
        for path in PROBE_PATHS & document["paths"].keys():
            for operation in document["paths"][path].values():
                operation["security"] = []
        return document

    app.openapi = with_keys  # type: ignore[method-assign]  # FastAPI's own way to extend it


SEGMENT: Final[dict[str, Any]] = {
    "summary": "The class of every pixel of an image",
    "response_class": Response,
    "responses": {
        200: {
            "model": SegmentResponse | MultiImageResponse,
            "description": "The class map, in the format that Accept asks for",
            "content": {**dict.fromkeys(media_types.ALL, _BINARY), media_types.JSON: {"examples": _examples()}},
        }
    },
    "openapi_extra": {
        "parameters": [_parameter(parameter) for parameter in PARAMETERS.values()],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": _FORM,
                "image/*": _BINARY,
                "application/octet-stream": _BINARY,
                media_types.JSON: _JSON,
            },
        },
    },
}
