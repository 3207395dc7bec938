"""Several pictures in one request: each with its own answer, or its own problem.

A place in the house is for one picture at a time. The request has one; for as many pictures as the house has room
for, it takes further places, and works on so many at once. So a lone client's pictures share batches, and under load
nobody gets ahead by sending many at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import orjson
from starlette.requests import Request

from service.admission.controller import AdmissionController
from service.admission.stalled_uploads import Permit
from service.errors import Overloaded, RequestError
from service.http.problems import describe
from service.inference.pipeline import RenderedResponse

T = TypeVar("T")
Answering = Callable[[bytes], Awaitable[RenderedResponse]]


async def answer_all(
    request: Request, admission: AdmissionController, pictures: Sequence[bytes], answer_one: Answering
) -> RenderedResponse:
    """Answer each picture as JSON: {"results": [...]}, in their order; {"problem": ...} for those that failed.

    timing_ms: of all pictures together. Ends when the work on all of them ends.
    """
    results = [b""] * len(pictures)
    timing_ms: dict[str, float] = {}

    async def answer_at(index: int) -> None:
        answer = await answer_one(pictures[index])
        results[index] = answer.body
        for stage, ms in answer.timing_ms.items():
            timing_ms[stage] = round(timing_ms.get(stage, 0.0) + ms, 3)

    def tell(index: int, error: RequestError) -> None:
        results[index] = orjson.dumps({"problem": describe(request, error)})

    await for_each(admission, range(len(pictures)), answer_at, tell)
    return RenderedResponse(b'{"results":[' + b",".join(results) + b"]}", timing_ms)


async def for_each(
    admission: AdmissionController,
    items: Sequence[T],
    work: Callable[[T], Awaitable[None]],
    failed: Callable[[T, RequestError], None] | None = None,
) -> None:
    """Do the work on each item, on as many at once as there are places, and as there is room for their pixels.

    failed: told what could not be done. Without it the first failure ends the others, and is raised once they have
    ended.
    """
    waiting = iter(items)
    companions = _Companions()

    async def work_on_next() -> None:
        for item in waiting:
            try:
                await companions.do(partial(work, item))
            except RequestError as error:
                if failed is None:
                    raise
                failed(item, error)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(work_on_next())
            for place in _further_places(admission, len(items) - 1):
                group.create_task(work_on_next()).add_done_callback(place.release)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


class _Companions:
    """The pictures of one request do not refuse each other: where the pixels of some leave no room, others wait."""

    def __init__(self) -> None:
        self._under_way = 0
        self._next_end = asyncio.Event()

    async def do(self, work: Callable[[], Awaitable[None]]) -> None:
        """Raises what the work raises; Overloaded for want of room for pixels only when no companion can make room."""
        while (end := await self._attempt(work)) is not None:
            await end.wait()

    async def _attempt(self, work: Callable[[], Awaitable[None]]) -> asyncio.Event | None:
        """Returns None when the work is done, else after what it is worth another attempt."""
        end = self._next_end  # set already, should a companion end before this one hears that there was no room
        self._under_way += 1
        again = False
        try:
            await work()
        except Overloaded as refusal:
            again = refusal.what == "pixels" and (self._under_way > 1 or end.is_set())
            if not again:
                raise
        finally:
            self._under_way -= 1
            if not again:
                self._next_end.set()
                self._next_end = asyncio.Event()
        return end if again else None


def _further_places(admission: AdmissionController, wanted: int) -> Iterator[Permit]:
    """From the half of the house that is free, so that others still find a place, and nobody is told it is full."""
    for _ in range(wanted):
        room = min(admission.limit(), admission.limits.count // 2)
        if admission.in_flight >= room or admission.rejection() is not None:
            return
        place = admission.acquire()
        place.body_read()
        yield place
