"""OpenAPI description of POST /, the Hugging Face task."""

import base64
from typing import Any, Final

import numpy as np
from fastapi import Response

from service.rendering import images

_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_REQUEST: Final = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "inputs": {"type": "string", "format": "byte", "description": "an image file in base64"},
        "parameters": {
            "type": "object",
            "properties": {
                "subtask": {"enum": ["semantic"]},
                "threshold": {"type": "number", "minimum": 0, "maximum": 1},
                "mask_threshold": {"type": "number", "minimum": 0, "maximum": 1},
                "overlap_mask_area_threshold": {"type": "number", "minimum": 0, "maximum": 1},
            },
        },
    },
}
_RESPONSE: Final = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["label", "score", "mask"],
        "properties": {
            "label": {"type": "string"},
            "score": {
                "type": ["number", "null"],
                "description": "mean probability of its pixels, 0 to 1; null if the model has no confidence",
            },
            "mask": {"type": "string", "format": "byte", "description": "8-bit PNG: 255 in the class, otherwise 0"},
        },
    },
}
_MASK: Final = base64.b64encode(images.class_mask_png(np.eye(2, dtype=np.uint8), 1)).decode("ascii")
_EXAMPLE: Final = [{"label": "road", "score": 0.9731, "mask": _MASK}]

SEGMENT: Final[dict[str, Any]] = {
    "summary": "Hugging Face image segmentation",
    "response_class": Response,
    "responses": {
        200: {
            "description": "The classes present in the image",
            "content": {"application/json": {"schema": _RESPONSE, "example": _EXAMPLE}},
        }
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "image/*": _BINARY,
                "application/octet-stream": _BINARY,
                "application/json": {"schema": _REQUEST},
            },
        }
    },
}
