"""What /docs says of POST /segment. Its example is made by the code that makes the answers."""

import time
from typing import Any, Final

import numpy as np
import orjson
from fastapi import Response
from pydantic import BaseModel, Field

from service import answers
from service.answers import Segmentation
from service.errors import QueueFull
from service.manifest import ClassEntry, Manifest


class ClassShare(BaseModel):
    """One class as it lies in the picture."""

    id: int
    name: str
    color: tuple[int, int, int] = Field(description="RGB, as in the mask's palette")
    pixels: int
    fraction: float = Field(description="share of the picture's pixels, 0 to 1")
    box: tuple[int, int, int, int] = Field(description="[x, y, width, height] around all pixels of the class")


class SegmentAnswer(BaseModel):
    """The answer in JSON. Every PNG is base64 and has the picture's own size."""

    model: str
    version: str
    width: int
    height: int
    classes: list[ClassShare] = Field(description="the classes that are present, by id")
    mask: str = Field(description="indexed PNG: a pixel's index is its class id, the palette the classes' colours")
    overlay: str | None = Field(None, description="RGB PNG: the colours blended over the picture")
    class_masks: dict[str, str] | None = Field(None, description="by class name, 8-bit PNG: 255 in the class, else 0")
    class_overlays: dict[str, str] | None = Field(None, description="by class name, RGBA PNG: its colour, else clear")
    timing_ms: dict[str, float] = Field(description="decode, queue, infer, encode")


def _example() -> Any:
    """A real answer on a street of 12x8 pixels: sky above, a building to the left, road below."""
    classes = (("sky", (128, 128, 128)), ("building", (128, 0, 0)), ("road", (128, 64, 128)))
    model = Manifest.model_construct(
        name="alignseg-lite", version="1", classes=tuple(ClassEntry(name=n, color=c) for n, c in classes)
    )
    ids = np.zeros((8, 12), dtype=np.uint8)
    ids[1:5, :4], ids[5:] = 1, 2
    timing = {"decode": 3.1, "queue": 0.05, "infer": 38.4}
    seg = Segmentation(model, np.zeros((8, 12, 3), dtype=np.uint8), ids, timing, time.perf_counter())
    return orjson.loads(answers.render_json(seg, frozenset()))


_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_FORM: Final = {
    "schema": {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, BMP or TIFF"}},
    }
}
_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what was got, what is expected, how to mend it"},
        "request_id": {"type": "string"},
        "retry_after_s": {"type": "number", "description": "with 429 and 503: as Retry-After, but exact"},
    },
}
_PROBLEM_EXAMPLE: Final = {
    "type": f"urn:alignseg:problem:{QueueFull.slug}",
    "title": QueueFull.title,
    "status": QueueFull.status,
    "detail": "64 requests are in flight, at most 64 are taken (ALIGNSEG_MAX_IN_FLIGHT). Come back after Retry-After.",
    "request_id": "9b1f0a6c2f1d4d0e8f3a5b7c9d1e2f30",
    "retry_after_s": 1.873,
}

PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "Any error, as RFC 9457 problem",
        "content": {"application/problem+json": {"schema": _PROBLEM, "example": _PROBLEM_EXAMPLE}},
    }
}

SEGMENT: Final[dict[str, Any]] = {
    "response_class": Response,
    "responses": {
        200: {
            "model": SegmentAnswer,
            "description": "The class map, in the form that Accept asks for",
            "content": {answers.JSON: {"example": _example()}, answers.PNG: _BINARY},
        }
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": _FORM, "image/*": _BINARY, "application/octet-stream": _BINARY},
        }
    },
}
