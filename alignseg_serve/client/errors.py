"""Everything that can go wrong between a client and a server.

ClientError
├── ConnectionFailed         nobody answered
├── UnexpectedResponse           somebody did, but not as AlignSeg's server does
└── ServerProblem       the server said no, as RFC 9457's problem: status, type, title, detail, request_id
    ├── InvalidImageError  400, 413, 415, 422  no picture, damaged, too large; the same again gets the same answer
    ├── AuthenticationError      401, 403            the API key is missing or wrong
    ├── Busy            429, 503            no room, and waiting longer would have passed the deadline
    ├── ServerTimeout         408, 504            the deadline passed at the server, or the upload was too slow
    └── ServerError    500 and the rest
"""

from collections.abc import Mapping
from dataclasses import dataclass


class ClientError(Exception):
    """Base of all that the client raises."""


class ConnectionFailed(ClientError):
    """No connection, or it broke, or no answer came in time."""


class UnexpectedResponse(ClientError):
    """An answer that is not AlignSeg's: another server, or another version."""


@dataclass(frozen=True, slots=True)
class Problem:
    """RFC 9457's members. retry_after_s: when it is worth coming back, where the server knows."""

    status: int
    type: str
    title: str
    detail: str
    request_id: str | None = None
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return f"{self.title}: {self.detail}" + (f" (request {self.request_id})" if self.request_id else "")


class ServerProblem(ClientError):
    """The server said no, and why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class InvalidImageError(ServerProblem):
    """Only another picture, or other parameters, can help."""


class AuthenticationError(ServerProblem):
    """The server wants an API key, or another one."""


class Overloaded(ServerProblem):
    """The server had no room until the deadline, or is not ready."""


class ServerTimeout(ServerProblem):
    """The server gave up: the deadline passed, or the picture came too slowly."""


class ServerError(ServerProblem):
    """A fault of the server."""


BY_STATUS: Mapping[int, type[ServerProblem]] = {
    **dict.fromkeys((400, 413, 415, 422), InvalidImageError),
    **dict.fromkeys((401, 403), AuthenticationError),
    **dict.fromkeys((429, 503), Overloaded),
    **dict.fromkeys((408, 504), ServerTimeout),
}


def error_of(problem: Problem) -> ServerProblem:
    """The exception that belongs to a problem."""
    return BY_STATUS.get(problem.status, ServerError)(problem)
