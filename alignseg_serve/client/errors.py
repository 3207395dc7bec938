"""Everything that can go wrong between a client and a server.

ClientError
├── Unreachable         nobody answered
├── BadAnswer           somebody did, but not as AlignSeg's server does
└── ServerProblem       the server said no, as RFC 9457's problem: status, type, title, detail, request_id
    ├── PictureRefused  400, 413, 415, 422  no picture, damaged, too large; the same again gets the same answer
    ├── NotAllowed      401, 403            the API key is missing or wrong
    ├── Busy            429, 503            no room, and waiting longer would have passed the deadline
    ├── TooLate         408, 504            the deadline passed at the server, or the upload was too slow
    └── ServerFailed    500 and the rest
"""

from collections.abc import Mapping
from dataclasses import dataclass


class ClientError(Exception):
    """Base of all that the client raises."""


class Unreachable(ClientError):
    """No connection, or it broke, or no answer came in time."""


class BadAnswer(ClientError):
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


class PictureRefused(ServerProblem):
    """Only another picture, or other parameters, can help."""


class NotAllowed(ServerProblem):
    """The server wants an API key, or another one."""


class Busy(ServerProblem):
    """The server had no room until the deadline, or is not ready."""


class TooLate(ServerProblem):
    """The server gave up: the deadline passed, or the picture came too slowly."""


class ServerFailed(ServerProblem):
    """A fault of the server."""


BY_STATUS: Mapping[int, type[ServerProblem]] = {
    **dict.fromkeys((400, 413, 415, 422), PictureRefused),
    **dict.fromkeys((401, 403), NotAllowed),
    **dict.fromkeys((429, 503), Busy),
    **dict.fromkeys((408, 504), TooLate),
}


def error_of(problem: Problem) -> ServerProblem:
    """The exception that belongs to a problem."""
    return BY_STATUS.get(problem.status, ServerFailed)(problem)
