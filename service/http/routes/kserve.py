"""KServe V2, also called the Open Inference Protocol, over REST: what Triton's clients use. See kserve_codec.py."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from service.admission.stalled_uploads import Permit
from service.errors import BadRequest
from service.http import kserve_codec, triton_model
from service.http.kserve_codec import JSON_LENGTH, InferRequest, Limits
from service.http.kserve_maps import Maps, segment_images, stack
from service.http.openapi import kserve
from service.http.request_lifecycle import handle_post, request_deadline
from service.http.routes.health import require_live, require_ready
from service.http.uploads import read_body
from service.inference.pipeline import Pipeline
from service.rendering import media_types

router = APIRouter(prefix="/v2", tags=["open inference protocol"], responses=kserve.ERRORS)

_BINARY: Final = "application/octet-stream"


@router.get("", summary="Server metadata")
async def server(request: Request) -> dict[str, Any]:
    """Name, version and extensions of the server."""
    return {"name": "alignseg-serve", "version": request.app.version, "extensions": list(triton_model.EXTENSIONS)}


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
    triton_model.require_model(_pipeline(request), model, version)
    return triton_model.metadata(_pipeline(request))


@router.get("/models/{model}/ready", summary="Readiness of the model")
@router.get("/models/{model}/versions/{version}/ready", include_in_schema=False)
async def model_ready(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
    """Whether this model accepts requests."""
    manifest = triton_model.require_model(_pipeline(request), model, version)
    return {"name": manifest.name, **await ready(request)}


@router.post("/models/{model}/infer", **kserve.INFER)
@router.post("/models/{model}/versions/{version}/infer", include_in_schema=False)
async def infer(request: Request, model: str, version: str | None = None) -> Response:
    """Class maps of N images, each at its own size.

    Input `pictures`: UINT8 [N, H, W, 3], RGB, of any H and W. Or `image`: BYTES [N], files such as JPEG (base64 in
    JSON), all of one size. Outputs: `class_map` and, if the model has it, `confidence`, UINT8 [N, H, W].
    """
    triton_model.require_model(_pipeline(request), model, version)
    json_bytes = _json_bytes(request)
    deadline = request_deadline(request)
    pipeline = _pipeline(request)
    limits = Limits(pipeline.settings.max_images, pipeline.settings.max_pixels)

    async def respond(body: bytes, permit: Permit) -> Response:
        infer_request = await pipeline.off_loop(kserve_codec.parse, body, json_bytes, limits)
        maps = await segment_images(pipeline, infer_request, deadline, permit)
        return await pipeline.off_loop(_response, infer_request, maps)

    return await handle_post(request, deadline, read_body, respond, extra_media_types={media_types.JSON})


def _response(infer_request: InferRequest, maps: list[Maps]) -> Response:
    model = maps[0].model  # the server may have switched to another one since
    head: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if infer_request.id is not None:
        head["id"] = infer_request.id
    outputs = {name: stack([entry.outputs[name] for entry in maps]) for name in infer_request.outputs}
    body, json_bytes = kserve_codec.pack(head, outputs, infer_request.outputs)
    if not any(infer_request.outputs.values()):
        return Response(body, media_type=media_types.JSON)
    return Response(body, media_type=_BINARY, headers={JSON_LENGTH: str(json_bytes)})


def _pipeline(request: Request) -> Pipeline:
    pipeline: Pipeline = request.app.state.pipeline
    return pipeline


def _json_bytes(request: Request) -> int | None:
    text = request.headers.get(JSON_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise BadRequest(f"{JSON_LENGTH} is {text[:40]!r}. Expected a number of bytes.")
    return int(text)
