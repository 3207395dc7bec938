"""When a request is sent again: a full server says so; one that was lost over it may have had a neighbour.

Segmenting changes nothing, so a request that may have been worked on can be sent again. Once: a picture that ends the
process which decodes it must not go on to the next, and the next.
"""

import random
import time
from typing import Final

import httpx

from alignseg_serve.client.errors import ConnectionFailed, Overloaded, error_of
from alignseg_serve.client.schemas import problem_of

_UNTOLD_S: Final = 1.0  # waited where a full server does not say how long
_LOST_S: Final = 0.1  # waited where the server was lost: a balancer needs a moment to see it
_SPREAD: Final = 0.1  # of the wait is added at random, so that a crowd that was sent away does not come back as one
_BROKEN: Final = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)  # it was there, and is no more
_OF_A_PROXY: Final = (500, 502)  # what proxies say when they lose the server behind them
_PROBLEM: Final = "application/problem+json"  # and what they don't: that is the server itself


class RetryPolicy:
    """One request's time: what is left of it, and whether a refusal or a loss leaves enough to come back."""

    def __init__(self, timeout_s: float) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._lost = False

    @property
    def left_s(self) -> float:
        """Seconds, never 0."""
        return max(0.001, self._deadline - time.monotonic())

    def prepare(self, request: httpx.Request) -> httpx.Request:
        """Limit each wait on the socket, and tell the server, which then computes nothing for a client that is gone."""
        request.extensions["timeout"] = httpx.Timeout(self.left_s).as_dict()
        request.headers["X-Request-Timeout-Ms"] = str(max(1, int(self.left_s * 1e3)))
        return request

    def after_refusal(self, response: httpx.Response) -> float:
        """How many seconds to wait before the next attempt. Raises ServerProblem when there should be none."""
        error = error_of(problem_of(response))
        if response.status_code in _OF_A_PROXY and not response.headers.get("content-type", "").startswith(_PROBLEM):
            return self._once_more(error)
        told_s = error.problem.retry_after_s
        return self._wait(_UNTOLD_S if told_s is None else told_s, error, again=isinstance(error, Overloaded))

    def after_loss(self, request: httpx.Request, error: httpx.RequestError) -> float:
        """How many seconds to wait before the next attempt. Raises ConnectionFailed when there should be none."""
        reason = "it took too long" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
        told = ConnectionFailed(f"{request.method} {request.url} failed: {reason}. Is the server running there?")
        if not isinstance(error, _BROKEN):
            raise told from error
        return self._once_more(told)

    def _once_more(self, error: Exception) -> float:
        again, self._lost = not self._lost, True
        return self._wait(_LOST_S, error, again=again)

    def _wait(self, seconds: float, error: Exception, *, again: bool) -> float:
        wait_s = seconds * (1 + _SPREAD * random.random())
        if not again or wait_s >= self.left_s:
            raise error
        return wait_s
