"""KServe V2, also known as the Open Inference Protocol, over REST: what Triton's clients speak. See tensors.py."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from service.errors import BadRequest, ImageTooLarge, NotReady
from service.http import kserve_codec
from service.http.kserve_codec import Limits, Wanted
from service.http.multi_image import for_each
from service.http.openapi import kserve
from service.http.request_lifecycle import exchange
from service.http.uploads import read_body
from service.inference.pipeline import Pipeline
from service.model_folder.manifest import Manifest
from service.rendering import media_types
from service.rendering.segmentation import Segmentation
from service.types import CLASS_MAP, UInt8Array

router = APIRouter(prefix="/v2", tags=["open inference protocol"], responses=kserve.ERRORS)

JSON_LENGTH: Final = "Inference-Header-Content-Length"
_BINARY: Final = "application/octet-stream"


@router.get("", summary="Name and version of the server")
async def server(request: Request) -> dict[str, Any]:
    """Name, version and extensions of the server."""
    return {"name": "alignseg-serve", "version": request.app.version, "extensions": ["binary_tensor_data"]}


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", summary="Is it alive")
async def live(request: Request) -> dict[str, bool]:
    """As /healthz/live."""
    if (reason := _pipeline(request).health.why_not_alive()) is not None:
        raise NotReady(f"{reason}; the process has to be started anew.")
    return {"live": True}


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", summary="Is it ready")
async def ready(request: Request) -> dict[str, bool]:
    """As /healthz/ready."""
    if (reason := await _pipeline(request).health.why_not_ready()) is not None:
        raise NotReady(f"{reason}.")
    return {"ready": True}


@router.get("/models/{model}", summary="Inputs and outputs of the model")
@router.get("/models/{model}/versions/{version}", include_in_schema=False)
async def metadata(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
    """Inputs and outputs of the model. An inference takes one of the two inputs."""
    manifest = _find(request, model, version)
    outputs = [CLASS_MAP, *([kserve_codec.CONFIDENCE] if _pipeline(request).model.has_confidence else [])]
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": f"alignseg_{_pipeline(request).model.runtime}",
        "inputs": kserve_codec.INPUTS,
        "outputs": [{"name": name, "datatype": "UINT8", "shape": [-1, -1, -1]} for name in outputs],
    }


@router.get("/models/{model}/ready", summary="Is the model ready")
@router.get("/models/{model}/versions/{version}/ready", include_in_schema=False)
async def model_ready(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
    """Whether this model can infer now."""
    manifest = _find(request, model, version)
    return {"name": manifest.name, **await ready(request)}


@router.post("/models/{model}/infer", **kserve.INFER)
@router.post("/models/{model}/versions/{version}/infer", include_in_schema=False)
async def infer(request: Request, model: str, version: str | None = None) -> Response:
    """Class maps of N pictures, each at its own size.

    Input `pictures`: UINT8 [N, H, W, 3], RGB, of any H and W. Or `image`: BYTES [N], files such as JPEG (base64 in
    JSON); all of one size. Outputs: `class_map` and, where the model tells it, `confidence`, UINT8 [N, H, W].
    """
    _find(request, model, version)
    json_bytes = _json_bytes(request)
    pipeline = _pipeline(request)
    limits = Limits(pipeline.settings.max_images, pipeline.settings.max_pixels)

    async def work(body: bytes, deadline: float) -> Response:
        wanted = await pipeline.off_loop(kserve_codec.parse, body, json_bytes, limits)
        return await pipeline.off_loop(_respond, wanted, await _segment(pipeline, wanted, deadline))

    return await exchange(request, read_body, work, also={media_types.JSON})


@dataclass(frozen=True, slots=True)
class _Maps:
    """What is kept of a segmentation: its pixels are given back to the budget."""

    model: Manifest
    outputs: dict[str, UInt8Array]


async def _segment(pipeline: Pipeline, wanted: Wanted, deadline: float) -> list[_Maps]:
    """In their order; the first failure ends them all, for a tensor has no place for an error."""
    if wanted.timeout_s is not None:
        deadline = min(deadline, time.monotonic() + wanted.timeout_s)
    found: dict[int, _Maps] = {}
    most = pipeline.settings.max_pixels  # of all together: a map must wait for the others, outside of the pixel budget

    def keep(index: int, seg: Segmentation) -> bytes:
        if len(wanted.pictures) * seg.ids.size > most:
            raise ImageTooLarge(f"{len(wanted.pictures)} maps of {seg.ids.size} pixels; at most {most} in one tensor.")
        maps = {CLASS_MAP: seg.ids, kserve_codec.CONFIDENCE: seg.confidence}
        found[index] = _Maps(seg.model, {name: values for name in wanted.outputs if (values := maps[name]) is not None})
        return b""

    async def one(index: int) -> None:
        render = partial(keep, index)
        with_confidence = kserve_codec.CONFIDENCE in wanted.outputs
        await pipeline.segment(wanted.pictures[index], render, deadline, with_confidence=with_confidence)

    await for_each(pipeline.admission, range(len(wanted.pictures)), one)
    return [found[index] for index in range(len(wanted.pictures))]


def _respond(wanted: Wanted, found: list[_Maps]) -> Response:
    answered_by = found[0].model  # it may have been exchanged since
    head: dict[str, Any] = {"model_name": answered_by.name, "model_version": answered_by.version}
    if wanted.id is not None:
        head["id"] = wanted.id
    outputs = {name: _stack([maps.outputs[name] for maps in found]) for name in wanted.outputs}
    body, json_bytes = kserve_codec.pack(head, outputs, wanted.outputs)
    if not any(wanted.outputs.values()):
        return Response(body, media_type=media_types.JSON)
    return Response(body, media_type=_BINARY, headers={JSON_LENGTH: str(json_bytes)})


def _stack(maps: list[UInt8Array]) -> UInt8Array:
    if len({values.shape for values in maps}) != 1:
        sizes = [f"{values.shape[1]}x{values.shape[0]}" for values in maps]
        raise BadRequest(f"the pictures are {', '.join(sizes)}; one tensor needs one size. Send them one by one.")
    return np.stack(maps)


def _pipeline(request: Request) -> Pipeline:
    pipeline: Pipeline = request.app.state.pipeline
    return pipeline


def _find(request: Request, model: str, version: str | None) -> Manifest:
    """The model that is served, if it is this one."""
    manifest = _pipeline(request).manifest
    if model != manifest.name or version not in {None, manifest.version}:
        raise HTTPException(404, f"no such model; {manifest.name} {manifest.version} is served")
    return manifest


def _json_bytes(request: Request) -> int | None:
    text = request.headers.get(JSON_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise BadRequest(f"{JSON_LENGTH} is {text[:40]!r}; expected a number of bytes.")
    return int(text)
