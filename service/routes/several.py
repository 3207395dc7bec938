"""Several pictures in one request: each with its own answer, or its own problem.

A place in the house is for one picture at a time. The request has one; for as many pictures as the house has room
for, it takes further places, and works on so many at once. So a lone client's pictures share batches, and under load
nobody gets ahead by sending many at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

import orjson
from starlette.requests import Request

from service.admission import Admission, Permit
from service.errors import RequestError
from service.pipeline import Answer
from service.routes.problems import describe

Answering = Callable[[bytes], Awaitable[Answer]]


async def answer_all(
    request: Request, admission: Admission, pictures: Sequence[bytes], answer_one: Answering
) -> Answer:
    """Answer each picture as JSON: {"results": [...]}, in their order; {"problem": ...} for those that failed.

    timing_ms: of all pictures together. Ends when the work on all of them ends.
    """
    results = [b""] * len(pictures)
    timing_ms: dict[str, float] = {}
    waiting = iter(enumerate(pictures))

    async def work() -> None:
        for index, picture in waiting:
            answer = await _answer_or_problem(request, picture, answer_one)
            results[index] = answer.body
            for stage, ms in answer.timing_ms.items():
                timing_ms[stage] = round(timing_ms.get(stage, 0.0) + ms, 3)

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        for place in _further_places(admission, len(pictures) - 1):
            group.create_task(work()).add_done_callback(place.release)
    return Answer(b'{"results":[' + b",".join(results) + b"]}", timing_ms)


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
