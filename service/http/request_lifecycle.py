"""One POST from its head to its response: admission, body, work, for as long as the client waits.

`handle_post` is what the routes call; read downward from there.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from service.admission.controller import AdmissionController
from service.admission.stalled_uploads import MAX_PAUSE_S, MIN_BYTES_PER_S, Permit
from service.errors import BadRequest, DeadlineExceeded, NotReady, RequestError, UploadTooSlow
from service.http.uploads import OnReceived, check_head, declared_size
from service.inference.pipeline import Pipeline

TIMEOUT_HEADER: Final = "X-Request-Timeout-Ms"
CLIENT_CLOSED_REQUEST: Final = 499  # nginx's status; only the access log sees it
_DEADLINE: Final = f"the shorter of {TIMEOUT_HEADER} and ALIGNSEG_REQUEST_TIMEOUT_MS"
Body = TypeVar("Body")


async def handle_post(
    request: Request,
    deadline: float,
    read_body: Callable[[Request, OnReceived], Awaitable[Body]],
    respond: Callable[[Body, Permit], Awaitable[Response]],
    extra_media_types: Collection[str] = (),
    max_body_bytes: int | None = None,
) -> Response:
    """Admit the request, read its body and await `respond(body, permit)`.

    deadline: on time.monotonic(), see request_deadline.
    extra_media_types: accepted for the body, besides those of images and forms.
    max_body_bytes: as `read_body` limits it; by default the setting.
    Raises RequestError.
    """
    permit = admit(request, deadline, extra_media_types, max_body_bytes)
    body_read = asyncio.Event()

    async def read_and_respond() -> Response:
        body = [await read_body(request, permit.received)]
        permit.body_read()
        body_read.set()
        return await respond(body.pop(), permit)  # no reference stays here: JSON is larger than the image in it

    try:
        return await run_until_disconnect_or_deadline(request, read_and_respond(), body_read, permit, deadline)
    except ClientDisconnect:
        return Response(status_code=CLIENT_CLOSED_REQUEST)


def request_deadline(request: Request) -> float:
    """When the response is due, on time.monotonic(): the client's own timeout, at most the server's.

    Raises BadRequest.
    """
    limit_ms: float = request.app.state.pipeline.settings.request_timeout_ms
    value = request.headers.get(TIMEOUT_HEADER)
    if value is None:
        return time.monotonic() + limit_ms / 1e3
    if not (value.isascii() and value.isdecimal() and len(value) < 10 and int(value)):
        raise BadRequest(
            f"{TIMEOUT_HEADER} is {value[:40]!r}. Expected a positive whole number of milliseconds, such as 500."
        )
    return time.monotonic() + min(float(value), limit_ms) / 1e3


def admit(
    request: Request, deadline: float, extra_media_types: Collection[str], max_body_bytes: int | None = None
) -> Permit:
    """Take a slot for a request before a byte of its body is read. The permit must be released when the work ends.

    Raises RequestError: Overloaded, NotReady, PayloadTooLarge, UnsupportedMediaType.
    """
    pipeline: Pipeline = request.app.state.pipeline
    max_body_bytes = max_body_bytes or pipeline.settings.max_body_bytes
    check_head(request, max_body_bytes, extra_media_types)
    size = declared_size(request.headers.get("content-length", ""), max_body_bytes)
    return pipeline.admission.acquire(size, deadline)


async def run_until_disconnect_or_deadline(
    request: Request,
    work: Coroutine[Any, Any, Response],
    body_read: asyncio.Event,
    permit: Permit,
    deadline: float,
) -> Response:
    """Await `work`, but not after the client has disconnected or the deadline has passed.

    body_read: set once `work` has read the body; only then may anything else receive from the connection.
    permit: released when `work` has really ended, which may be after this returns. Preempting it cancels `work`.
    deadline: on time.monotonic(). Raises ClientDisconnect, DeadlineExceeded, UploadTooSlow, or what `work` raises.
    """
    admission: AdmissionController = request.app.state.pipeline.admission
    work_task = asyncio.ensure_future(work)
    work_task.add_done_callback(permit.release)
    permit.on_preempted = work_task.cancel
    disconnect_task = asyncio.ensure_future(_disconnect(request, body_read))
    try:
        remaining_s = max(0.0, deadline - time.monotonic())
        done, _ = await asyncio.wait(
            {work_task, disconnect_task}, timeout=remaining_s, return_when=asyncio.FIRST_COMPLETED
        )
        if permit.preempted:
            raise _upload_stalled(request, permit, admission.closed_because)
        if work_task in done:
            return work_task.result()
        if disconnect_task in done:
            raise ClientDisconnect
        raise _deadline_passed(request, permit, body_read)
    except asyncio.CancelledError:
        if admission.closed_because is None:
            raise
        # The drain timed out and uvicorn cancels what is left: even then every client gets a response.
        raise NotReady(
            "The server shut down before the response was ready. Send the request to another replica."
        ) from None
    finally:
        disconnect_task.cancel()
        work_task.cancel()


async def _disconnect(request: Request, body_read: asyncio.Event) -> None:
    await body_read.wait()
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _upload_stalled(request: Request, permit: Permit, closed_because: str | None) -> UploadTooSlow:
    cause = f"while {closed_because}" if closed_because else "and its slot was reassigned"
    return UploadTooSlow(
        f"Upload stalled {cause}: received {_progress(request, permit)}. "
        f"Minimum rate: {MIN_BYTES_PER_S / 1000:g} kB/s with no pause over {MAX_PAUSE_S:g} s. "
        "Retry with a smaller image or a faster connection."
    )


def _deadline_passed(request: Request, permit: Permit, body_read: asyncio.Event) -> RequestError:
    if body_read.is_set():
        return DeadlineExceeded(f"No result by the deadline, {_DEADLINE}. Retry later, or allow more time.")
    return UploadTooSlow(
        f"Upload incomplete at the deadline: received {_progress(request, permit)}. The deadline is {_DEADLINE}. "
        "Send a smaller image, or allow more time."
    )


def _progress(request: Request, permit: Permit) -> str:
    declared = request.headers.get("content-length")
    total = "" if declared is None else f" of {declared}"
    return f"{permit.arrived}{total} bytes in {time.monotonic() - permit.entered:.1f} s"
