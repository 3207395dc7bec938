"""The gRPC status of an error, and how long a client should wait.

Source: gRPC's status codes (https://grpc.io/docs/guides/status-codes/), and A6, which defines the pushback.
"""

import math
from typing import Final

import grpc

from service.errors import RequestError

PUSHBACK: Final = "grpc-retry-pushback-ms"  # clients with a retry policy wait this long
_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def code(status: int) -> grpc.StatusCode:
    """The status code of an HTTP status of errors.py."""
    return _CODES.get(status, grpc.StatusCode.UNKNOWN)


def metadata(request_id: str, error: RequestError | None) -> tuple[tuple[str, str], ...]:
    """Trailing metadata: the request id and, where the call may be retried, when."""
    id_entry = ("x-request-id", request_id)
    if error is None or error.retry_after_s is None:
        return (id_entry,)
    return id_entry, (PUSHBACK, str(math.ceil(error.retry_after_s * 1e3)))
