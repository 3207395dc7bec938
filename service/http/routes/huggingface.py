"""POST /: Hugging Face's image segmentation task, as `huggingface_hub.InferenceClient` asks for it.

The client posts to the very URL that it is given as its model, as to an Inference Endpoint: the picture as the body,
or, with parameters, JSON with the picture in base64.
"""

import base64
import binascii
from functools import partial
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, ValidationError

from service.errors import BadRequest, PayloadTooLarge
from service.http.openapi import huggingface
from service.http.request_lifecycle import exchange
from service.http.uploads import media_type, read_body
from service.inference.pipeline import Pipeline
from service.rendering import images, media_types
from service.rendering.class_stats import summarize
from service.rendering.segmentation import Segmentation

router = APIRouter(tags=["hugging face"])
MAX_JSON_BYTES: Final = 8 * 1024 * 1024  # JSON may take many times its text in memory
Share = Annotated[float, Field(ge=0, le=1)]


class _Parameters(BaseModel):
    """threshold: classes with a smaller mean confidence are left out.

    The mask thresholds are of no meaning to class maps, in which each pixel has one class; they are taken and unused,
    as by Hugging Face's own pipeline for semantic segmentation.
    """

    subtask: Literal["semantic"] | None = None
    threshold: Share | None = None
    mask_threshold: Share | None = None
    overlap_mask_area_threshold: Share | None = None


class _Request(BaseModel):
    inputs: str
    parameters: _Parameters = _Parameters()


@router.post("/", **huggingface.SEGMENT)
async def image_segmentation(request: Request) -> Response:
    """`InferenceClient("http://this.server").image_segmentation("street.jpg")`: label, score and mask of each class.

    The score is the mean probability of the class's pixels, null where the model does not tell it.
    """
    pipeline: Pipeline = request.app.state.pipeline
    is_json = media_type(request) == media_types.JSON

    async def work(body: bytes, deadline: float) -> Response:
        picture, parameters = await pipeline.off_loop(_parse, body) if is_json else (body, _Parameters())
        scored = pipeline.model.has_confidence
        if parameters.threshold:
            pipeline.require_confidence()
        render = partial(_render, threshold=parameters.threshold or 0.0)
        answer = await pipeline.segment(picture, render, deadline, with_confidence=scored, with_pixels=False)
        return Response(answer.body, media_type=media_types.JSON)

    return await exchange(request, read_body, work, also={media_types.JSON})


def _parse(body: bytes) -> tuple[bytes, _Parameters]:
    """Raises BadRequest or PayloadTooLarge."""
    if len(body) > MAX_JSON_BYTES:
        raise PayloadTooLarge(
            f"the JSON has {len(body)} bytes, at most {MAX_JSON_BYTES} are taken. Send the picture as body."
        )
    try:
        request = _Request.model_validate(orjson.loads(body))
        return base64.b64decode(request.inputs, validate=True), request.parameters
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:4])
        raise BadRequest(f"the request is none of the image segmentation task: {told}.") from None
    except (orjson.JSONDecodeError, binascii.Error, ValueError) as error:
        raise BadRequest(f'expected {{"inputs": a picture in base64, "parameters": {{}}}}: {error}.') from None


def _render(seg: Segmentation, threshold: float) -> bytes:
    entries: list[dict[str, Any]] = [
        {"label": c.name, "score": c.confidence, "mask": _mask(seg, c.id)}
        for c in summarize(seg.ids, seg.model, seg.confidence)
        if c.confidence is None or c.confidence >= threshold
    ]
    return orjson.dumps(entries)


def _mask(seg: Segmentation, class_id: int) -> str:
    return base64.b64encode(images.class_mask_png(seg.ids, class_id)).decode("ascii")
