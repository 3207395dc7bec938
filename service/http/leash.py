"""Work that ends for its client when the client has left or the deadline has passed."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from service.admission.stalled_uploads import MAX_PAUSE_S, MIN_BYTES_PER_S, Permit
from service.errors import DeadlineExceeded, NotReady, RequestError, UploadTooSlow

T = TypeVar("T")


async def run_until_disconnect_or_deadline(
    request: Request, work: Coroutine[Any, Any, T], body_read: asyncio.Event, permit: Permit, deadline: float
) -> T:
    """Await `work`, but no longer than the client listens nor past the deadline.

    body_read: set once `work` has read the body; only then may anyone else listen to the connection.
    permit: given back when `work` has really ended, which may be after this returns. Taken back, it ends the work.
    deadline: on time.monotonic(). Raises ClientDisconnect, DeadlineExceeded, UploadTooSlow, or what `work` raises.
    """
    job = asyncio.ensure_future(work)
    job.add_done_callback(permit.release)
    permit.on_preempted = job.cancel
    watch = asyncio.ensure_future(_gone(request, body_read))
    try:
        left_s = max(0.0, deadline - time.monotonic())
        done, _ = await asyncio.wait({job, watch}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if permit.preempted:
            raise _stalled(_came(request, permit), request.app.state.pipeline.admission.closed_because)
        if job in done:
            return job.result()
        if watch in done:
            raise ClientDisconnect
        raise _late(_came(request, permit), body_read)
    except asyncio.CancelledError:
        if request.app.state.pipeline.admission.closed_because is None:
            raise
        # The drain took too long and uvicorn ends what is left: even so nobody is left without a word.
        raise NotReady("the server ended before the answer was ready; send the request to another replica.") from None
    finally:
        watch.cancel()
        job.cancel()


def _came(request: Request, permit: Permit) -> str:
    length = request.headers.get("content-length")
    of = "" if length is None else f" of {length}"
    return f"{permit.arrived}{of} bytes of the body came in {time.monotonic() - permit.entered:.1f} s"


def _stalled(came: str, closed_because: str | None) -> UploadTooSlow:
    cause = f"while {closed_because}" if closed_because else "and its slot was reassigned"
    return UploadTooSlow(
        f"Upload stalled {cause}: {came}. Minimum rate: {MIN_BYTES_PER_S // 1000} kB/s "
        f"with no pause over {MAX_PAUSE_S:.0f} s. Retry with a smaller image or a faster connection."
    )


def _late(came: str, body_read: asyncio.Event) -> RequestError:
    sooner = "the sooner of X-Request-Timeout-Ms and ALIGNSEG_REQUEST_TIMEOUT_MS"
    if body_read.is_set():
        return DeadlineExceeded(f"the answer was not ready in time: {sooner}. Come back later, or give it longer.")
    return UploadTooSlow(
        f"{came}; expected was all of it, and time to answer ({sooner}). Scale it down, or give it longer."
    )


async def _gone(request: Request, body_read: asyncio.Event) -> None:
    await body_read.wait()
    while (await request.receive())["type"] != "http.disconnect":
        pass
