"""Several images in one request: each has its own result or its own problem.

A permit is for one image at a time. The request has one permit and takes more while the server is less than half full,
so the images of a single client share batches, and under load nobody gains by sending many images at once. Images that
wait count as work of the request's own permit, see admission.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import orjson
from starlette.requests import Request

from service.admission.controller import AdmissionController
from service.admission.stalled_uploads import Permit
from service.errors import Overloaded, RequestError
from service.http.multipart import ImageFile
from service.http.problems import problem_members
from service.inference.pipeline import RenderedResponse

T = TypeVar("T")


async def segment_all(
    request: Request,
    admission: AdmissionController,
    permit: Permit,
    images: Sequence[ImageFile],
    segment_one: Callable[[bytes, Permit], Awaitable[RenderedResponse]],
) -> RenderedResponse:
    """Segment each image. Returns the JSON {"results": [...]} in their order, with {"problem": ...} for failed ones.

    Each result begins with the image's index, and the name of its file if the client sent one.
    timing_ms: sums over all images. Ends when the work on all of them has ended.
    """
    results = [b""] * len(images)
    timing_ms: dict[str, float] = {}

    async def segment_at(index: int, permit: Permit) -> None:
        result = await segment_one(images[index].data, permit)
        results[index] = _named(index, images[index], result.body)
        for stage, ms in result.timing_ms.items():
            timing_ms[stage] = round(timing_ms.get(stage, 0.0) + ms, 3)

    def on_error(index: int, error: RequestError) -> None:
        results[index] = _named(index, images[index], orjson.dumps({"problem": problem_members(request, error)}))

    await for_each(admission, permit, range(len(images)), segment_at, on_error)
    return RenderedResponse(b'{"results":[' + b",".join(results) + b"]}", timing_ms)


def _named(index: int, image: ImageFile, result: bytes) -> bytes:
    """Add members at the beginning of a JSON object that is serialized already."""
    members: dict[str, Any] = {"index": index}
    if image.filename is not None:
        members["filename"] = image.filename
    return orjson.dumps(members)[:-1] + b"," + result[1:]


async def for_each(
    admission: AdmissionController,
    request_permit: Permit,
    items: Sequence[T],
    work: Callable[[T, Permit], Awaitable[None]],
    on_error: Callable[[T, RequestError], None] | None = None,
) -> None:
    """Await `work(item, permit)` for each item, for as many at once as there are permits, and room for their pixels.

    request_permit: the request's own; the others are taken and released here.
    on_error: called for each item that fails. Without it the first failure cancels the others, and is raised once they
    have ended.
    """
    remaining = iter(items)
    pixel_retry = _PixelRetry()

    async def work_on_remaining(permit: Permit) -> None:
        for item in remaining:
            permit.start_image(request_permit)
            try:
                await pixel_retry.run(partial(work, item, permit))
            except RequestError as error:
                if on_error is None:
                    raise
                on_error(item, error)
            finally:
                permit.image_done()

    request_permit.expect_images(len(items))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(work_on_remaining(request_permit))
            for permit in _extra_permits(admission, len(items) - 1):
                group.create_task(work_on_remaining(permit)).add_done_callback(permit.release)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


class _PixelRetry:
    """Images of one request do not reject each other: if the pixel budget has no room, one waits until another ends."""

    def __init__(self) -> None:
        self._running = 0
        self._next_end = asyncio.Event()

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Raises what the work raises; Overloaded for pixels only if no other image of the request can make room."""
        while (end := await self._try(work)) is not None:
            await end.wait()

    async def _try(self, work: Callable[[], Awaitable[None]]) -> asyncio.Event | None:
        """Returns None when the work is done, otherwise the event after which to try again."""
        end = self._next_end  # already set if another image ends before this one learns that there is no room
        self._running += 1
        retry = False
        try:
            await work()
        except Overloaded as error:
            retry = error.what == "pixels" and (self._running > 1 or end.is_set())
            if not retry:
                raise
        finally:
            self._running -= 1
            if not retry:
                self._next_end.set()
                self._next_end = asyncio.Event()
        return end if retry else None


def _extra_permits(admission: AdmissionController, count: int) -> Iterator[Permit]:
    """Up to `count` permits while the server is less than half full, so that others are still admitted."""
    for _ in range(count):
        limit = min(admission.limit(), admission.limits.count // 2)
        if admission.in_flight >= limit or admission.rejection() is not None:
            return
        permit = admission.acquire(tensors=0)
        permit.body_read()
        yield permit
