"""Every exception of the client.

ClientError
├── ConfigurationError        the proxy or certificates that the environment names are unusable; also a ValueError
├── ConnectionFailed          no connection, or it broke, or a timeout passed without a response
├── UnexpectedResponse        a response that an AlignSeg server of this version does not send
└── ServerProblem             an error response: status, type, title, detail, request_id (RFC 9457)
    ├── InvalidImageError     400, 413, 415, 422   the image or a parameter is invalid; a retry gives the same error
    ├── AuthenticationError   401, 403             the API key is missing or wrong
    ├── Overloaded            429, 503             no capacity before the timeout, or the server is not ready
    ├── ServerTimeout         408, 504             the request's deadline passed, or the upload was too slow
    └── ServerError           500, all others      a fault in the server
"""

from collections.abc import Mapping
from dataclasses import dataclass


class ClientError(Exception):
    """Base class of all exceptions that the client raises."""


class ConfigurationError(ClientError, ValueError):
    """HTTP_PROXY, ALL_PROXY, SSL_CERT_FILE or the like is unusable; raised when a client is constructed."""


class ConnectionFailed(ClientError):
    """The connection could not be opened or broke, or no response arrived before the timeout."""


class UnexpectedResponse(ClientError):
    """The response has another format: it is not an AlignSeg server, or one of another version."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The members of an RFC 9457 problem document.

    retry_after_s: seconds after which a retry can succeed; None when the server does not know.
    """

    status: int
    type: str
    title: str
    detail: str
    request_id: str | None = None
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return f"{self.title}: {self.detail}" + (f" (request {self.request_id})" if self.request_id else "")


class ServerProblem(ClientError):
    """The server returned an error; `problem` has its details."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class InvalidImageError(ServerProblem):
    """The image or a parameter is invalid. A retry gives the same error."""


class AuthenticationError(ServerProblem):
    """The API key is missing or wrong."""


class Overloaded(ServerProblem):
    """The server had no capacity before the timeout, or is not ready."""


class ServerTimeout(ServerProblem):
    """The request's deadline passed at the server, or the upload was too slow."""


class ServerError(ServerProblem):
    """A fault in the server."""


BY_STATUS: Mapping[int, type[ServerProblem]] = {
    **dict.fromkeys((400, 413, 415, 422), InvalidImageError),
    **dict.fromkeys((401, 403), AuthenticationError),
    **dict.fromkeys((429, 503), Overloaded),
    **dict.fromkeys((408, 504), ServerTimeout),
}


def error_from(problem: Problem) -> ServerProblem:
    """The exception for a problem, by its status."""
    return BY_STATUS.get(problem.status, ServerError)(problem)
