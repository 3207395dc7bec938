"""KServe V2, also called the Open Inference Protocol, over REST: what Triton's clients use. See kserve_codec.py."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from service.admission.stalled_uploads import Permit
from service.errors import BadRequest, ImageTooLarge
from service.http import kserve_codec
from service.http.kserve_codec import JSON_LENGTH, InferRequest, Limits
from service.http.multi_image import for_each
from service.http.openapi import kserve
from service.http.request_lifecycle import handle_post, request_deadline
from service.http.routes.health import require_live, require_ready
from service.http.uploads import read_body
from service.inference.pipeline import Pipeline
from service.model_folder.manifest import Manifest
from service.rendering import media_types
from service.rendering.segmentation import Segmentation
from service.types import CLASS_MAP, UInt8Array

router = APIRouter(prefix="/v2", tags=["open inference protocol"], responses=kserve.ERRORS)

_BINARY: Final = "application/octet-stream"


@router.get("", summary="Server metadata")
async def server(request: Request) -> dict[str, Any]:
    """Name, version and extensions of the server."""
    return {"name": "alignseg-serve", "version": request.app.version, "extensions": ["binary_tensor_data"]}


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", summary="Liveness probe")
async def live(request: Request) -> dict[str, bool]:
    """Same as /healthz/live."""
    require_live(request)
    return {"live": True}


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", summary="Readiness probe")
async def ready(request: Request) -> dict[str, bool]:
    """Same as /healthz/ready."""
    await require_ready(request)
    return {"ready": True}


@router.get("/models/{model}", summary="Model metadata")
@router.get("/models/{model}/versions/{version}", include_in_schema=False)
async def metadata(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
    """Inputs and outputs of the model. An inference takes one of the two inputs."""
    manifest = _served_model(request, model, version)
    outputs = [CLASS_MAP, *([kserve_codec.CONFIDENCE] if _pipeline(request).model.has_confidence else [])]
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": f"alignseg_{_pipeline(request).model.runtime}",
        "inputs": kserve_codec.INPUTS,
        "outputs": [{"name": name, "datatype": "UINT8", "shape": [-1, -1, -1]} for name in outputs],
    }


@router.get("/models/{model}/ready", summary="Readiness of the model")
@router.get("/models/{model}/versions/{version}/ready", include_in_schema=False)
async def model_ready(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
    """Whether this model accepts requests."""
    manifest = _served_model(request, model, version)
    return {"name": manifest.name, **await ready(request)}


@router.post("/models/{model}/infer", **kserve.INFER)
@router.post("/models/{model}/versions/{version}/infer", include_in_schema=False)
async def infer(request: Request, model: str, version: str | None = None) -> Response:
    """Class maps of N images, each at its own size.

    Input `pictures`: UINT8 [N, H, W, 3], RGB, of any H and W. Or `image`: BYTES [N], files such as JPEG (base64 in
    JSON), all of one size. Outputs: `class_map` and, if the model has it, `confidence`, UINT8 [N, H, W].
    """
    _served_model(request, model, version)
    json_bytes = _json_bytes(request)
    deadline = request_deadline(request)
    pipeline = _pipeline(request)
    limits = Limits(pipeline.settings.max_images, pipeline.settings.max_pixels)

    async def respond(body: bytes, permit: Permit) -> Response:
        infer_request = await pipeline.off_loop(kserve_codec.parse, body, json_bytes, limits)
        maps = await _segment(pipeline, infer_request, deadline, permit)
        return await pipeline.off_loop(_response, infer_request, maps)

    return await handle_post(request, deadline, read_body, respond, extra_media_types={media_types.JSON})


@dataclass(frozen=True, slots=True)
class _Maps:
    """What is kept of a segmentation. Its pixels are not, so that they leave the pixel budget."""

    model: Manifest
    outputs: dict[str, UInt8Array]


async def _segment(pipeline: Pipeline, infer_request: InferRequest, deadline: float, permit: Permit) -> list[_Maps]:
    """The maps of each image, in order. The first failure ends all: a tensor has no place for an error."""
    if infer_request.timeout_s is not None:
        deadline = min(deadline, time.monotonic() + infer_request.timeout_s)
    count = len(infer_request.images)
    maps_by_index: dict[int, _Maps] = {}
    max_pixels = pipeline.settings.max_pixels  # of all maps together: they wait for each other outside the pixel budget

    def keep_maps(index: int, seg: Segmentation) -> bytes:
        if count * seg.ids.size > max_pixels:
            raise ImageTooLarge(
                f"The output has {count} maps of {seg.ids.size} pixels, limit {max_pixels} pixels in total "
                "(ALIGNSEG_MAX_PIXELS). Send fewer images per request."
            )
        maps = {CLASS_MAP: seg.ids, kserve_codec.CONFIDENCE: seg.confidence}
        outputs = {name: values for name in infer_request.outputs if (values := maps[name]) is not None}
        maps_by_index[index] = _Maps(seg.model, outputs)
        return b""

    async def segment_at(index: int, permit: Permit) -> None:
        render = partial(keep_maps, index)
        with_confidence = kserve_codec.CONFIDENCE in infer_request.outputs
        await pipeline.segment(infer_request.images[index], render, deadline, permit, with_confidence=with_confidence)

    await for_each(pipeline.admission, permit, range(count), segment_at)
    return [maps_by_index[index] for index in range(count)]


def _response(infer_request: InferRequest, maps: list[_Maps]) -> Response:
    model = maps[0].model  # the server may have switched to another one since
    head: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if infer_request.id is not None:
        head["id"] = infer_request.id
    outputs = {name: _stack([entry.outputs[name] for entry in maps]) for name in infer_request.outputs}
    body, json_bytes = kserve_codec.pack(head, outputs, infer_request.outputs)
    if not any(infer_request.outputs.values()):
        return Response(body, media_type=media_types.JSON)
    return Response(body, media_type=_BINARY, headers={JSON_LENGTH: str(json_bytes)})


def _stack(maps: list[UInt8Array]) -> UInt8Array:
    if len({values.shape for values in maps}) != 1:
        sizes = ", ".join(f"{values.shape[1]}x{values.shape[0]}" for values in maps)
        raise BadRequest(f"The images have different sizes: {sizes}. Send one request per size.")
    return np.stack(maps)


def _pipeline(request: Request) -> Pipeline:
    pipeline: Pipeline = request.app.state.pipeline
    return pipeline


def _served_model(request: Request, model: str, version: str | None) -> Manifest:
    """The served model, if it is this one. Raises HTTPException (404)."""
    manifest = _pipeline(request).manifest
    if model != manifest.name or version not in {None, manifest.version}:
        raise HTTPException(404, f"no such model; this server has {manifest.name}, version {manifest.version}")
    return manifest


def _json_bytes(request: Request) -> int | None:
    text = request.headers.get(JSON_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise BadRequest(f"{JSON_LENGTH} is {text[:40]!r}. Expected a number of bytes.")
    return int(text)
