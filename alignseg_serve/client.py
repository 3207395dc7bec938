"""A client of an AlignSeg server, sync and async. Knows HTTP alone: it needs no model and none of the server's code.

with Client("http://localhost:8000") as client:
    street = client.segment("street.jpg")
    street.mask  # (H, W) uint8 class ids
"""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any, Final, Self

import httpx

from alignseg_serve.client_errors import Busy, ClientError, Unreachable, error_of
from alignseg_serve.client_messages import (
    ClassEntry,
    ClassShare,
    ClassTable,
    Picture,
    Segmentation,
    bytes_of,
    class_table_of,
    problem_of,
    query,
    segmentation_of,
)

__all__ = ["AsyncClient", "ClassEntry", "ClassShare", "ClassTable", "Client", "ClientError", "Picture", "Segmentation"]

TIMEOUT_S: Final = 60.0
_UNTOLD_S: Final = 1.0  # waited where a full server does not say how long
_SPREAD: Final = 0.1  # of the wait is added at random, so that a crowd that was sent away does not come back as one


class _Attempts:
    """One request's time: what is left of it, and whether a refusal leaves enough to come back."""

    def __init__(self, timeout_s: float) -> None:
        self._deadline = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        return max(0.001, self._deadline - time.monotonic())

    def prepare(self, request: httpx.Request) -> httpx.Request:
        """Limit each wait on the socket, and tell the server, which then computes nothing for a client that is gone."""
        request.extensions["timeout"] = httpx.Timeout(self.left_s).as_dict()
        request.headers["X-Request-Timeout-Ms"] = str(max(1, int(self.left_s * 1e3)))
        return request

    def pause_s(self, response: httpx.Response) -> float | None:
        """None for a good answer; else how long to wait before the next attempt.

        Raises ServerProblem when there should be none.
        """
        if response.is_success:
            return None
        error = error_of(problem_of(response))
        told_s = error.problem.retry_after_s
        wait_s = (_UNTOLD_S if told_s is None else told_s) * (1 + _SPREAD * random.random())
        if not isinstance(error, Busy) or wait_s >= self.left_s:
            raise error
        return wait_s


def _options(url: str, timeout_s: float, api_key: str | None) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"got {url!r}; expected a URL such as http://localhost:8000.")
    headers = {"Accept": "application/json"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    return {"base_url": url, "headers": headers, "timeout": timeout_s}


def _segment_request(data: bytes, params: dict[str, str]) -> dict[str, Any]:
    return {
        "method": "POST",
        "url": "segment",
        "content": data,
        "headers": {"Content-Type": "application/octet-stream"},
        "params": params,
    }


def _unreachable(request: httpx.Request, error: httpx.RequestError) -> Unreachable:
    reason = "it took too long" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
    return Unreachable(f"{request.method} {request.url} failed: {reason}. Is the server running there?")


class Client:
    """Talks to one server; may be shared by threads.

    timeout_s: for each call, the waits for a full server included. api_key: where the server wants one.
    transport: httpx's, for tests. Raises ValueError when `url` is none.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = TIMEOUT_S,
        api_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._http = httpx.Client(**_options(url, timeout_s, api_key), transport=transport)

    def segment(
        self,
        picture: Picture,
        *,
        overlay: bool = False,
        confidence: bool = False,
        tile: bool = False,
        classes: Sequence[str] = (),
    ) -> Segmentation:
        """Name the class of every pixel.

        picture: a path, the bytes of a file, a Pillow picture, or (H, W, 3) uint8 RGB. overlay, confidence: asks for
        these too. tile: looks through overlapping tiles, for pictures much larger than the model's input.
        classes: only these, by name or id. Raises ClientError, or what bytes_of raises.
        """
        params = query(overlay=overlay, confidence=confidence, tile=tile, classes=classes)
        return segmentation_of(self._send(**_segment_request(bytes_of(picture), params)))

    def classes(self) -> ClassTable:
        """Id, name and colour of all that the model knows. Raises ClientError."""
        return class_table_of(self._send("GET", "classes"))

    def ready(self) -> bool:
        """Whether the server takes work now; False also when nobody answers."""
        try:
            return self._http.get("healthz/ready").is_success
        except httpx.RequestError:
            return False

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, method: str, url: str, **options: Any) -> httpx.Response:
        attempts = _Attempts(self._timeout_s)
        while True:
            request = attempts.prepare(self._http.build_request(method, url, **options))
            try:
                response = self._http.send(request)
            except httpx.RequestError as error:
                raise _unreachable(request, error) from error
            if (wait_s := attempts.pause_s(response)) is None:
                return response
            time.sleep(wait_s)


class AsyncClient:
    """As Client, for asyncio."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = TIMEOUT_S,
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(**_options(url, timeout_s, api_key), transport=transport)

    async def segment(
        self,
        picture: Picture,
        *,
        overlay: bool = False,
        confidence: bool = False,
        tile: bool = False,
        classes: Sequence[str] = (),
    ) -> Segmentation:
        """See Client. Files are read and pictures encoded in a thread."""
        params = query(overlay=overlay, confidence=confidence, tile=tile, classes=classes)
        data = await asyncio.to_thread(bytes_of, picture)
        return segmentation_of(await self._send(**_segment_request(data, params)))

    async def classes(self) -> ClassTable:
        """See Client."""
        return class_table_of(await self._send("GET", "classes"))

    async def ready(self) -> bool:
        """See Client."""
        try:
            return (await self._http.get("healthz/ready")).is_success
        except httpx.RequestError:
            return False

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, method: str, url: str, **options: Any) -> httpx.Response:
        attempts = _Attempts(self._timeout_s)
        while True:
            request = attempts.prepare(self._http.build_request(method, url, **options))
            try:
                response = await self._http.send(request)
            except httpx.RequestError as error:
                raise _unreachable(request, error) from error
            if (wait_s := attempts.pause_s(response)) is None:
                return response
            await asyncio.sleep(wait_s)
