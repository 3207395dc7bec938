"""Several pictures in one request: each with its own answer, or its own problem.

A place in the house is for one picture at a time. The request has one; for as many pictures as the house has room
for, it takes further places, and works on so many at once. So a lone client's pictures share batches, and under load
nobody gets ahead by sending many at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import orjson
from starlette.requests import Request

from service.admission import Admission, Permit
from service.errors import RequestError
from service.pipeline import Answer
from service.routes.problems import describe

T = TypeVar("T")
Answering = Callable[[bytes], Awaitable[Answer]]


async def answer_all(
    request: Request, admission: Admission, pictures: Sequence[bytes], answer_one: Answering
) -> Answer:
    """Answer each picture as JSON: {"results": [...]}, in their order; {"problem": ...} for those that failed.

    timing_ms: of all pictures together. Ends when the work on all of them ends.
    """
    results = [b""] * len(pictures)
    timing_ms: dict[str, float] = {}

    async def answer_at(index: int) -> None:
        answer = await _answer_or_problem(request, pictures[index], answer_one)
        results[index] = answer.body
        for stage, ms in answer.timing_ms.items():
            timing_ms[stage] = round(timing_ms.get(stage, 0.0) + ms, 3)

    await for_each(admission, range(len(pictures)), answer_at)
    return Answer(b'{"results":[' + b",".join(results) + b"]}", timing_ms)


async def for_each(admission: Admission, items: Sequence[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do the work on each item, on as many at once as there are places.

    The first failure ends the others, and is raised once they have ended.
    """
    waiting = iter(items)

    async def work_on_next() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(work_on_next())
            for place in _further_places(admission, len(items) - 1):
                group.create_task(work_on_next()).add_done_callback(place.release)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _answer_or_problem(request: Request, picture: bytes, answer_one: Answering) -> Answer:
    try:
        return await answer_one(picture)
    except RequestError as error:
        return Answer(orjson.dumps({"problem": describe(request, error)}), {})


def _further_places(admission: Admission, wanted: int) -> Iterator[Permit]:
    """From the half of the house that is free, so that others still find a place, and nobody is told it is full."""
    for _ in range(wanted):
        room = min(admission.places(), admission.limits.count // 2)
        if admission.in_flight >= room or admission.refusal() is not None:
            return
        place = admission.enter()
        place.body_read()
        yield place
