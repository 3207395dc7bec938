"""POST /segment: a picture in, its class map out."""

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from starlette.requests import ClientDisconnect

from service import answers
from service.errors import BadRequest
from service.pipeline import Answer, Pipeline
from service.routes import openapi
from service.routes.body import read_picture
from service.routes.entrance import enter
from service.routes.leash import on_leash
from service.routes.negotiation import choose

router = APIRouter(tags=["segmentation"])
CLIENT_LEFT: Final = 499  # nginx's number; nobody reads it but the access log

Include = Annotated[
    list[str] | None,
    Query(description=f"Pictures to add to the JSON, separated by commas: {', '.join(answers.INCLUDE)}."),
]


@router.post("/segment", **openapi.SEGMENT)
async def segment(request: Request, include: Include = None) -> Response:
    """Name the class of every pixel of a picture.

    Send the picture as the multipart field `image`, or as the body itself. JSON by default; `Accept: image/png`
    gives the mask alone: an indexed PNG at the picture's own size whose pixel values are class ids.
    """
    pipeline: Pipeline = request.app.state.pipeline
    media_type = choose(",".join(request.headers.getlist("accept")), list(answers.RENDERERS))
    renderer, extras = answers.RENDERERS[media_type], _parse_include(include or [], media_type)
    permit, deadline = enter(request)

    body_read = asyncio.Event()

    async def work() -> Answer:
        data = await read_picture(request, pipeline.settings.max_body_bytes)
        body_read.set()
        return await pipeline.answer(data, lambda seg: renderer(seg, extras), deadline)

    try:
        answer = await on_leash(request, work(), body_read, permit, deadline)
    except ClientDisconnect:
        return Response(status_code=CLIENT_LEFT)
    timing = ", ".join(f"{stage};dur={ms}" for stage, ms in answer.timing_ms.items())
    return Response(answer.body, media_type=media_type, headers={"Server-Timing": timing, "Vary": "Accept"})


def _parse_include(values: list[str], media_type: str) -> frozenset[str]:
    """?include=a,b and ?include=a&include=b mean the same."""
    names = frozenset(name.strip() for value in values for name in value.split(",") if name.strip())
    if unknown := sorted(names - set(answers.INCLUDE)):
        raise BadRequest(f"include has {', '.join(unknown)}; it can have {', '.join(answers.INCLUDE)}.")
    if names and media_type != answers.JSON:
        raise BadRequest(f"include adds to {answers.JSON}, but Accept asks for {media_type}. Leave one of them out.")
    return names
