"""POST /segment: an image in, its class map out.

Read on in http/request_lifecycle.py (`handle_post`), then in inference/pipeline.py (`Pipeline.segment`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import request_response

from service.admission.stalled_uploads import Permit
from service.errors import BadRequest
from service.http import json_image, query_params
from service.http.content_negotiation import choose
from service.http.multi_image import segment_all
from service.http.multipart import ImageFile
from service.http.openapi import segment as openapi
from service.http.query_params import PARAMETERS
from service.http.request_lifecycle import handle_post, request_deadline
from service.http.uploads import media_type, read_body, read_images
from service.inference.pipeline import Pipeline, RenderedResponse
from service.rendering import formats, media_types
from service.rendering.options import RenderOptions
from service.rendering.selection import select


async def segment(request: Request) -> Response:
    """Classify every pixel of an image.

    Send the image as the multipart field `image`, as the request body, or in base64 as the member `image` of a JSON
    object whose other members are the query parameters. `Accept` selects the response format: JSON by default;
    `image/png` for the mask, an indexed PNG whose pixel values are class ids; `image/jpeg` or `image/webp` for an
    overlay; `application/x-npy` for the class ids; `application/zip` or `multipart/mixed` for all of them as files. All
    of them have the image's own size. The field `image` may be repeated: `results` in the JSON then holds a result or a
    problem for each image, with its `index` and, if one was sent, its `filename`.

    `X-Request-Timeout-Ms` limits the time until the response. `X-Request-Id` sets the request id in the server's log.
    """
    segment_request = SegmentRequest.parse(request)
    if media_type(request) == media_types.JSON:
        return await _segment_json(request, segment_request)
    return await handle_post(
        request, segment_request.deadline, read_images, partial(_respond, request, segment_request)
    )


@dataclass(frozen=True, slots=True)
class SegmentRequest:
    """What the head of a request asks for.

    media_type: of the response. options: the query parameters. deadline: on time.monotonic().
    """

    media_type: str
    options: RenderOptions
    deadline: float

    @classmethod
    def parse(cls, request: Request) -> "SegmentRequest":
        """Parse the head, before the upload. Raises NotAcceptable, or BadRequest, also for what the model lacks."""
        accepted = choose(",".join(request.headers.getlist("accept")), tuple(formats.RENDERERS))
        return cls(accepted, _parse_options(request, accepted), request_deadline(request))

    def with_options(self, request: Request, more: list[tuple[str, str]]) -> "SegmentRequest":
        """The same with options from the body besides those of the query. Raises BadRequest."""
        return replace(self, options=_parse_options(request, self.media_type, more)) if more else self


def _parse_options(request: Request, accepted: str, more: Sequence[tuple[str, str]] = ()) -> RenderOptions:
    pipeline: Pipeline = request.app.state.pipeline
    options = query_params.parse([*request.query_params.multi_items(), *more], accepted)
    if options.classes:
        select(options.classes, pipeline.manifest, pipeline.manifest.name)
    if options.confidence:
        pipeline.require_confidence()
    return options


async def _segment_json(request: Request, segment_request: SegmentRequest) -> Response:
    pipeline: Pipeline = request.app.state.pipeline
    max_image_bytes = pipeline.settings.max_body_bytes
    max_bytes = json_image.max_json_bytes(max_image_bytes)

    async def respond(body: bytes, permit: Permit) -> Response:
        image, options = await pipeline.off_loop(json_image.parse, body, max_image_bytes, tuple(PARAMETERS))
        del body  # larger than the image, and not needed any more
        return await _respond(request, segment_request.with_options(request, options), [ImageFile(image)], permit)

    read = partial(read_body, max_body_bytes=max_bytes)
    return await handle_post(request, segment_request.deadline, read, respond, {media_types.JSON}, max_bytes)


async def _respond(
    request: Request, segment_request: SegmentRequest, images: list[ImageFile], permit: Permit
) -> Response:
    pipeline: Pipeline = request.app.state.pipeline
    segment_one, media_type = partial(_segment_one, pipeline, segment_request), segment_request.media_type
    if len(images) == 1:
        result = await segment_one(images[0].data, permit)
    else:
        _require_json(media_type, len(images))
        result = await segment_all(request, pipeline.admission, permit, images, segment_one)
    return _response(result, media_type, pipeline.settings.root_path)


async def _segment_one(
    pipeline: Pipeline, segment_request: SegmentRequest, image: bytes, permit: Permit
) -> RenderedResponse:
    media_type, options = segment_request.media_type, segment_request.options
    return await pipeline.segment(
        image,
        partial(formats.render, media_type, options),
        segment_request.deadline,
        permit,
        with_confidence=options.confidence,
        tile=options.tile,
        with_pixels=formats.needs_pixels(media_type, options),
    )


def _require_json(media_type: str, images: int) -> None:
    if media_type != media_types.JSON:
        raise BadRequest(
            f"The request has {images} images and Accept asks for {media_type}. Several images in one request are "
            f"returned as {media_types.JSON} only. Accept that, or send one image per request."
        )


def _response(result: RenderedResponse, media_type: str, root_path: str) -> Response:
    headers = {
        "Vary": "Accept",
        "Link": f'<{root_path}/classes>; rel="describedby"',  # RFC 8288: what the ids mean
        "Server-Timing": ", ".join(f"{stage};dur={ms}" for stage, ms in result.timing_ms.items()),
        "Content-Type": formats.content_type(media_type),
    }
    return Response(result.body, headers=headers)


class DirectRoute(APIRoute):
    """A FastAPI route, with its OpenAPI description, whose function is called directly with the Request.

    FastAPI's dependency injection is skipped: this route needs none, and it takes longer than our own code.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.app = request_response(self.endpoint)


def add_route(app: FastAPI) -> None:
    """Add POST /segment, and under the path of Amazon SageMaker's contract POST /invocations.

    Call it before routers are included: the search for a route ends at the first match.
    """
    for path, in_schema in (("/segment", True), ("/invocations", False)):
        app.router.add_api_route(
            path,
            segment,
            methods=["POST"],
            tags=["segmentation"],
            route_class_override=DirectRoute,
            include_in_schema=in_schema,
            **openapi.SEGMENT,
        )
