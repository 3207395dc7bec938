"""POST /segment: a picture in, its class map out."""

from functools import partial
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.errors import BadRequest
from service.http import query_params
from service.http.content_negotiation import choose
from service.http.multi_image import answer_all
from service.http.openapi import segment as openapi
from service.http.request_lifecycle import exchange
from service.http.uploads import read_pictures
from service.inference.pipeline import Pipeline, RenderedResponse
from service.rendering import formats, media_types
from service.rendering.options import RenderOptions
from service.rendering.segmentation import find_classes

router = APIRouter(tags=["segmentation"])
_HEADERS: Final = {"Vary": "Accept", "Link": '</classes>; rel="describedby"'}  # RFC 8288: what the ids mean


@router.post("/segment", **openapi.SEGMENT)
async def segment(request: Request) -> Response:
    """Name the class of every pixel of a picture.

    Send the picture as the multipart field `image`, or as the body itself. `Accept` chooses the form of the answer:
    JSON by default; `image/png` for the mask alone, an indexed PNG whose pixel values are class ids; `image/jpeg` or
    `image/webp` for the overlay; `application/x-npy` for the ids; `application/zip` or `multipart/mixed` for all of
    them as files. Everything has the picture's own size. The field `image` may be repeated: `results` in the JSON
    then holds an answer or a problem for each picture.

    `X-Request-Timeout-Ms` says how long the answer is waited for, `X-Request-Id` how the log is to call the request.
    """
    pipeline: Pipeline = request.app.state.pipeline
    media_type = choose(",".join(request.headers.getlist("accept")), tuple(formats.RENDERERS))
    asked = query_params.parse(request.query_params.multi_items(), media_type)
    _refuse_early(pipeline, asked)

    async def work(pictures: list[bytes], deadline: float) -> Response:
        answer_one = partial(_answer_one, pipeline, media_type, asked, deadline)
        if len(pictures) == 1:
            return _response(await answer_one(pictures[0]), media_type)
        _require_json(media_type, len(pictures))
        return _response(await answer_all(request, pipeline.admission, pictures, answer_one), media_type)

    return await exchange(request, read_pictures, work)


class Express(Route):
    """The same without FastAPI's search for a route and without its preparations, which take longer than ours do.

    It stands before all other routes; the one above is what the documents are made of.
    """

    def __init__(self) -> None:
        super().__init__("/segment", segment, methods=["POST"], include_in_schema=False)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Starlette's, and noted in the scope as FastAPI notes its own: for observe.py."""
        scope["route"] = self
        await super().handle(scope, receive, send)


def _response(answer: RenderedResponse, media_type: str) -> Response:
    timing = ", ".join(f"{stage};dur={ms}" for stage, ms in answer.timing_ms.items())
    headers = {**_HEADERS, "Server-Timing": timing, "Content-Type": formats.content_type(media_type)}
    return Response(answer.body, headers=headers)


def _refuse_early(pipeline: Pipeline, asked: RenderOptions) -> None:
    """What the model at hand can't do is said before the upload. Raises BadRequest."""
    find_classes(asked.classes, pipeline.manifest)
    if asked.confidence:
        pipeline.require_confidence()


async def _answer_one(
    pipeline: Pipeline, media_type: str, asked: RenderOptions, deadline: float, data: bytes
) -> RenderedResponse:
    render = partial(formats.render, media_type, asked)
    return await pipeline.segment(
        data,
        render,
        deadline,
        with_confidence=asked.confidence,
        tile=asked.tile,
        with_pixels=formats.needs_pixels(media_type, asked),
    )


def _require_json(media_type: str, pictures: int) -> None:
    if media_type != media_types.JSON:
        raise BadRequest(
            f"got {pictures} pictures and Accept asks for {media_type}; several images need "
            f"{media_types.JSON}. Accept that, or send one picture a request."
        )
