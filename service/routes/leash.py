"""Work that ends for its client when the client has left or the deadline has passed."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from service.admission import Permit
from service.errors import DeadlineExceeded, NotReady

T = TypeVar("T")


async def on_leash(
    request: Request, work: Coroutine[Any, Any, T], body_read: asyncio.Event, permit: Permit, deadline: float
) -> T:
    """Await `work`, but no longer than the client listens nor past the deadline.

    body_read: set once `work` has read the body; only then may anyone else listen to the connection.
    permit: given back when `work` has really ended, which may be after this returns.
    deadline: on time.monotonic(). Raises ClientDisconnect, DeadlineExceeded, or what `work` raises.
    """
    job = asyncio.ensure_future(work)
    job.add_done_callback(permit.release)
    watch = asyncio.ensure_future(_gone(request, body_read, permit))
    try:
        left_s = max(0.0, deadline - time.monotonic())
        done, _ = await asyncio.wait({job, watch}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if job in done:
            return job.result()
        if watch in done:
            raise ClientDisconnect
        raise DeadlineExceeded(
            "the answer was not ready in time: the sooner of X-Request-Timeout-Ms and "
            "ALIGNSEG_REQUEST_TIMEOUT_MS. Come back later, or give it longer."
        )
    except asyncio.CancelledError:
        if request.app.state.pipeline.admission.closed_because is None:
            raise
        # The drain took too long and uvicorn ends what is left: even so nobody is left without a word.
        raise NotReady("the server ended before the answer was ready; send the request to another replica.") from None
    finally:
        watch.cancel()
        job.cancel()


async def _gone(request: Request, body_read: asyncio.Event, permit: Permit) -> None:
    await body_read.wait()
    permit.body_read()
    while (await request.receive())["type"] != "http.disconnect":
        pass
