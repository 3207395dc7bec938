"""OpenAPI description of POST /v2/models/{model}/infer."""

from typing import Any, Final

from fastapi import Response

_TENSOR: Final = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string", "enum": ["UINT8", "BYTES"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        "parameters": {"type": "object", "description": "binary_data_size, with Triton's binary extension"},
        "data": {"type": "array", "items": {}, "description": "numbers, flat or nested; base64 strings for BYTES"},
    },
}
_REQUEST: Final = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {"type": "object", "description": "binary_data_output; timeout in microseconds"},
        "inputs": {"type": "array", "items": _TENSOR, "minItems": 1, "maxItems": 1},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"enum": ["class_map", "confidence"]}, "parameters": {"type": "object"}},
            },
        },
    },
}
_RESPONSE: Final = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {"type": "array", "items": _TENSOR},
    },
}
_REQUEST_EXAMPLE: Final = {
    "inputs": [{"name": "pictures", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [90, 90, 95, 120, 160, 220]}]
}
_RESPONSE_EXAMPLE: Final = {
    "model_name": "alignseg-lite",
    "model_version": "1",
    "outputs": [{"name": "class_map", "datatype": "UINT8", "shape": [1, 1, 2], "data": [3, 0]}],
}

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "Any error",
        "content": {
            "application/json": {
                "schema": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
            }
        },
    }
}

INFER: Final[dict[str, Any]] = {
    "summary": "Class maps of a tensor of images",
    "response_class": Response,
    "responses": {
        200: {
            "description": "The outputs. If some are binary: Inference-Header-Content-Length bytes of JSON, then data",
            "content": {
                "application/json": {"schema": _RESPONSE, "example": _RESPONSE_EXAMPLE},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _REQUEST, "example": _REQUEST_EXAMPLE},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
}
