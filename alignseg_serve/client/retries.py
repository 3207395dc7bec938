"""Retries: after 429 and 503 when the server says so, and once after a connection that broke.

Segmenting an image has no side effects, so a request that may have reached an engine can be sent again. A broken
connection is retried once only: an image that crashes the server process must not crash one replica after another.
"""

import random
import ssl
import time
from typing import Final

import httpx

from alignseg_serve.client.environment import Proxy
from alignseg_serve.client.errors import ConnectionFailed, Overloaded, error_from
from alignseg_serve.client.schemas import parse_problem

_DEFAULT_RETRY_AFTER_S: Final = 1.0  # for a 429 or 503 without Retry-After
_RECONNECT_S: Final = 0.1  # after a broken connection: a load balancer needs a moment to notice it
_JITTER: Final = 0.1  # share of the wait that is added at random, so that rejected clients do not return all at once
_BROKEN_CONNECTION: Final = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
_PROXY_STATUSES: Final = (500, 502)  # of a proxy that lost its connection to the server
_PROBLEM: Final = "application/problem+json"  # the server's own errors have this type, a proxy's do not


class RetryPolicy:
    """The time that is left for one request, and whether an error leaves enough of it for a retry."""

    def __init__(self, timeout_s: float, proxy: Proxy | None = None) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._reconnected = False
        self._proxy = proxy

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; always positive."""
        return max(0.001, self._deadline - time.monotonic())

    def prepare(self, request: httpx.Request) -> httpx.Request:
        """Set the socket timeouts, and the header by which the server drops work that would come too late."""
        request.extensions["timeout"] = httpx.Timeout(self.left_s).as_dict()
        request.headers["X-Request-Timeout-Ms"] = str(max(1, int(self.left_s * 1e3)))
        return request

    def after_error_response(self, response: httpx.Response) -> float:
        """Seconds to wait before the retry. Raises ServerProblem when there is none."""
        error = error_from(parse_problem(response))
        if response.status_code in _PROXY_STATUSES and not _is_problem(response):
            return self._retry_once(error)
        wait_s = error.problem.retry_after_s
        wait_s = _DEFAULT_RETRY_AFTER_S if wait_s is None else wait_s
        return self._wait_or_raise(wait_s, error, retry=isinstance(error, Overloaded))

    def after_transport_error(self, request: httpx.Request, error: httpx.RequestError) -> float:
        """Seconds to wait before the retry. Raises ConnectionFailed when there is none."""
        reason = "timed out" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
        failure = ConnectionFailed(
            f"{request.method} {request.url} failed: {reason}. {advice(request.url, error, self._proxy)}"
        )
        if not isinstance(error, _BROKEN_CONNECTION):
            raise failure from error
        return self._retry_once(failure)

    def _retry_once(self, error: Exception) -> float:
        retry, self._reconnected = not self._reconnected, True
        return self._wait_or_raise(_RECONNECT_S, error, retry=retry)

    def _wait_or_raise(self, seconds: float, error: Exception, *, retry: bool) -> float:
        wait_s = seconds * (1 + _JITTER * random.random())
        if not retry or wait_s >= self.left_s:
            raise error
        return wait_s


def _is_problem(response: httpx.Response) -> bool:
    return bool(response.headers.get("content-type", "").startswith(_PROBLEM))


def advice(url: httpx.URL, error: httpx.RequestError, proxy: Proxy | None) -> str:
    """What to check after a transport error: the proxy, the certificates, or the server itself."""
    if _is_tls(error):
        return (
            "Check that the server uses https://, and its certificate; SSL_CERT_FILE names a file of trusted "
            "certificates (PEM)."
        )
    if proxy is not None and isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
        return (
            f"The connection goes through the proxy {proxy.label} ({proxy.variable}): check that it is running, or "
            f"exclude the server: NO_PROXY={url.host}"
        )
    return "Check the address and that the server is running."


def _is_tls(error: BaseException) -> bool:
    """Whether TLS failed. httpx keeps ssl's exception as the cause or context only."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
