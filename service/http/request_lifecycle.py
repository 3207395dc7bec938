"""One POST from its head to its answer: a place, the body, the work, all for no longer than the client listens."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeVar

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from service.http.entrance import enter
from service.http.leash import run_until_disconnect_or_deadline
from service.http.uploads import Progress

CLIENT_LEFT: Final = 499  # nginx's number; nobody reads it but the access log
Body = TypeVar("Body")
Read = Callable[[Request, Progress], Awaitable[Body]]


async def exchange(
    request: Request, read: Read[Body], work: Callable[[Body, float], Awaitable[Response]], also: Collection[str] = ()
) -> Response:
    """Answer with what `work` makes of what `read` takes out of the body, and of the deadline, on time.monotonic().

    also: media types of the body, besides pictures'. Raises RequestError.
    """
    permit, deadline = enter(request, also)
    body_read = asyncio.Event()

    async def read_and_work() -> Response:
        body = await read(request, permit.received)
        permit.body_read()
        body_read.set()
        return await work(body, deadline)

    try:
        return await run_until_disconnect_or_deadline(request, read_and_work(), body_read, permit, deadline)
    except ClientDisconnect:
        return Response(status_code=CLIENT_LEFT)
