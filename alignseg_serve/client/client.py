"""A client of an AlignSeg server, sync and async. Knows HTTP alone: it needs no model and none of the server's code.

with Client("http://localhost:8000") as client:
    street = client.segment("street.jpg")
    street.mask  # (H, W) uint8 class ids
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final, Self

import httpx

from alignseg_serve.client.errors import ClientError
from alignseg_serve.client.retries import RetryPolicy
from alignseg_serve.client.schemas import (
    ClassEntry,
    ClassShare,
    ClassTable,
    Picture,
    Segmentation,
    bytes_of,
    class_table_of,
    query,
    segmentation_of,
)

__all__ = ["AsyncClient", "ClassEntry", "ClassShare", "ClassTable", "Client", "ClientError", "Picture", "Segmentation"]

TIMEOUT_S: Final = 60.0


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
        attempts = RetryPolicy(self._timeout_s)
        while True:
            request = attempts.prepare(self._http.build_request(method, url, **options))
            try:
                response = self._http.send(request)
            except httpx.RequestError as error:
                wait_s = attempts.after_loss(request, error)
            else:
                if response.is_success:
                    return response
                wait_s = attempts.after_refusal(response)
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
        attempts = RetryPolicy(self._timeout_s)
        while True:
            request = attempts.prepare(self._http.build_request(method, url, **options))
            try:
                response = await self._http.send(request)
            except httpx.RequestError as error:
                wait_s = attempts.after_loss(request, error)
            else:
                if response.is_success:
                    return response
                wait_s = attempts.after_refusal(response)
            await asyncio.sleep(wait_s)
