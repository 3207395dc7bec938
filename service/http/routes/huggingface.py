"""POST /: Hugging Face's image segmentation task, as sent by `huggingface_hub.InferenceClient`.

The client posts to the URL that it is given as its model, as to an Inference Endpoint: the image as the body or, with
parameters, JSON with the image in base64.
"""

import base64
from functools import partial
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, ValidationError

from service.admission.stalled_uploads import Permit
from service.errors import BadRequest
from service.http import json_image
from service.http.openapi import huggingface
from service.http.request_lifecycle import handle_post, request_deadline
from service.http.uploads import media_type, read_body
from service.inference.pipeline import Pipeline
from service.rendering import images, media_types
from service.rendering.class_stats import summarize
from service.rendering.segmentation import Segmentation

router = APIRouter(tags=["hugging face"])
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Parameters(BaseModel):
    """threshold: classes with a lower mean confidence are left out.

    The mask thresholds do not apply to class maps, where each pixel has exactly one class. They are accepted and
    ignored, as by Hugging Face's own pipeline for semantic segmentation.
    """

    subtask: Literal["semantic"] | None = None
    threshold: Fraction | None = None
    mask_threshold: Fraction | None = None
    overlap_mask_area_threshold: Fraction | None = None


class _Request(BaseModel):
    inputs: str
    parameters: _Parameters = _Parameters()


@router.post("/", **huggingface.SEGMENT)
async def image_segmentation(request: Request) -> Response:
    """`InferenceClient("http://this.server").image_segmentation("street.jpg")`: label, score and mask of each class.

    The score is the mean probability of the class's pixels, null if the model has no confidence output.
    """
    pipeline: Pipeline = request.app.state.pipeline
    is_json = media_type(request) == media_types.JSON
    deadline = request_deadline(request)
    max_image_bytes = pipeline.settings.max_body_bytes
    max_bytes = json_image.max_json_bytes(max_image_bytes) if is_json else max_image_bytes

    async def respond(body: bytes, permit: Permit) -> Response:
        image, parameters = await pipeline.off_loop(_parse, body, max_image_bytes) if is_json else (body, _Parameters())
        del body
        with_confidence = pipeline.model.has_confidence
        if parameters.threshold:
            pipeline.require_confidence()
        render = partial(_render, threshold=parameters.threshold or 0.0)
        result = await pipeline.segment(
            image, render, deadline, permit, with_confidence=with_confidence, with_pixels=False
        )
        return Response(result.body, media_type=media_types.JSON)

    read = partial(read_body, max_body_bytes=max_bytes)
    return await handle_post(request, deadline, read, respond, {media_types.JSON}, max_bytes)


def _parse(body: bytes, max_image_bytes: int) -> tuple[bytes, _Parameters]:
    """Raises BadRequest or PayloadTooLarge."""
    try:
        request = _Request.model_validate(json_image.loads(body))
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:4])
        raise BadRequest(f"Not a request of the image segmentation task: {details}.") from None
    return json_image.decode_image(request.inputs, max_image_bytes, "inputs"), request.parameters


def _render(seg: Segmentation, threshold: float) -> bytes:
    entries: list[dict[str, Any]] = [
        {"label": c.name, "score": c.confidence, "mask": _mask(seg, c.id)}
        for c in summarize(seg.ids, seg.model, seg.confidence)
        if c.confidence is None or c.confidence >= threshold
    ]
    return orjson.dumps(entries)


def _mask(seg: Segmentation, class_id: int) -> str:
    return base64.b64encode(images.class_mask_png(seg.ids, class_id)).decode("ascii")
