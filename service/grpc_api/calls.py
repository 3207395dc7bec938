"""What every call has in common: key, deadline, log line, metrics, trace, and errors as gRPC's status.

Handlers take a stream of one message, which on the wire is the same as one message: so a call is rejected, or gets its
slot, before its message is read.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import grpc
import grpc.aio

from service.errors import BadRequest, RequestError, Unauthorized, UploadTooSlow
from service.grpc_api import status
from service.grpc_api.messages import PACKAGE
from service.http.auth import ApiKeys
from service.http.middleware.observability import request_id_from
from service.http.problems import TYPE_PREFIX
from service.inference.pipeline import Pipeline
from service.observers import isolated
from service.telemetry import request_record
from service.telemetry.access_log import AccessLog
from service.telemetry.metrics import Metrics
from service.telemetry.request_record import RequestRecord
from service.telemetry.tracing import Tracer

log = logging.getLogger("alignseg.grpc")
SERVICE: Final = f"{PACKAGE}.GRPCInferenceService"
CANCELLED: Final = 499  # as HTTP's log lines have it
Headers = list[tuple[bytes, bytes]]


class NotFound(RequestError):
    """404: another model than the served one."""

    status = 404
    slug = "not-found"
    title = "Not Found"


@dataclass(frozen=True, slots=True)
class Observers:
    """Those of the application."""

    metrics: Metrics
    log: AccessLog
    tracer: Tracer | None


@dataclass(frozen=True, slots=True)
class Call:
    """One call, before its message is read. deadline: on time.monotonic(). read: awaits the message."""

    pipeline: Pipeline
    deadline: float
    read: Callable[[], Awaitable[bytes]]


Respond = Callable[[Call], Awaitable[bytes]]


class Handler:
    """One method of the service. needs_key: false for probes. respond: from the call to the response's bytes."""

    def __init__(
        self, name: str, respond: Respond, pipeline: Pipeline, observers: Observers, keys: ApiKeys, *, needs_key: bool
    ) -> None:
        self._path = f"/{SERVICE}/{name}"
        self._respond = respond
        self._pipeline = pipeline
        self._observers = observers
        self._keys = keys
        self._needs_key = needs_key

    async def handle(self, messages: AsyncIterator[bytes], context: Any) -> bytes:
        """Handle a call. Ends with the response, or with a status other than OK."""
        headers = _headers(context)
        request_id = request_id_from(headers) or f"{random.getrandbits(128):032x}"
        record = RequestRecord(
            request_id, method="GRPC", path=self._path, client=_address(context), route=self._path, status=CANCELLED
        )
        token = request_record.set_current(record)
        try:
            context.set_trailing_metadata(status.metadata(request_id, None))
            response = await self._response(messages, context, headers)
            record.status, record.bytes_out = 200, len(response)
            return response
        except RequestError as error:
            record.status, record.refused = error.status, error.reason
            await _abort(context, request_id, error)
        except asyncio.CancelledError:
            raise
        except Exception:
            record.status = 500
            log.exception("%s %s failed", request_id, self._path)
            await context.abort(grpc.StatusCode.INTERNAL, f"Unexpected server error, request id {request_id}.")
        finally:
            request_record.reset_current(token)
            self._finish(record, headers)
        raise AssertionError("abort raises")

    async def _response(self, messages: AsyncIterator[bytes], context: Any, headers: Headers) -> bytes:
        if self._needs_key and not self._keys.authorise(headers):
            raise Unauthorized("Missing or unknown API key. Send it as metadata: `authorization: Bearer KEY`.")
        deadline = self._deadline(context)
        return await self._respond(Call(self._pipeline, deadline, lambda: _read(messages, deadline)))

    def _deadline(self, context: Any) -> float:
        """The call's own deadline, at most the server's. A client without one may send a very late one."""
        limit_s = self._pipeline.settings.request_timeout_ms / 1e3
        remaining_s = context.time_remaining()
        return time.monotonic() + (limit_s if remaining_s is None else min(limit_s, max(0.0, remaining_s)))

    def _finish(self, record: RequestRecord, headers: Headers) -> None:
        observers = self._observers
        if observers.tracer is not None:
            with isolated:
                record.trace_id = observers.tracer.export(record, headers)
        with isolated:
            observers.metrics.finished(record)
        with isolated:
            observers.log.write(record, quiet=not self._needs_key)


async def _read(messages: AsyncIterator[bytes], deadline: float) -> bytes:
    """The call's message. Raises BadRequest or UploadTooSlow."""
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            return await anext(messages)
    except StopAsyncIteration:
        raise BadRequest("The call has no message. Expected one.") from None
    except TimeoutError:
        message = "The message did not arrive by the deadline. Send a smaller one, or allow more time."
        raise UploadTooSlow(message) from None


def _headers(context: Any) -> Headers:
    """The call's metadata in the form of HTTP headers."""
    pairs = context.invocation_metadata() or ()
    return [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in pairs]


def _address(context: Any) -> str:
    """The client's IP address. gRPC has ipv4:127.0.0.1:5000, ipv6:%5B::1%5D:5000, or a path of a Unix socket."""
    kind, _, address = unquote(context.peer()).partition(":")
    return address.rpartition(":")[0].strip("[]") if kind.startswith("ipv") else ""


async def _abort(context: Any, request_id: str, error: RequestError) -> None:
    """Raises grpc.aio.AbortError."""
    trailing = (*status.metadata(request_id, error), ("problem-type", TYPE_PREFIX + error.slug))
    await context.abort(status.code(error.status), f"{error.title}: {error}", trailing)
