"""`Client` and `AsyncClient`: the API of an AlignSeg server as methods, with retries."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final, Self

import httpx

from alignseg_serve.client.environment import has_address, proxy_for, transport_options
from alignseg_serve.client.retries import RetryPolicy
from alignseg_serve.client.schemas import (
    ClassTable,
    ImageInput,
    Segmentation,
    encode_image,
    parse_class_table,
    parse_segmentation,
    query_params,
)

TIMEOUT_S: Final = 60.0


def _parse_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ValueError(f"url: got {url!r}; expected a URL such as http://localhost:8000 ({error}).") from None
    if parsed.scheme not in {"http", "https"} or not has_address(parsed):
        raise ValueError(f"url: got {url!r}; expected a URL such as http://localhost:8000.")
    return parsed


def _options(url: httpx.URL, timeout_s: float, api_key: str | None) -> dict[str, Any]:
    headers = {"Accept": "application/json"}
    if api_key is not None:
        if not api_key.isascii() or not api_key.isprintable():
            raise ValueError("api_key: got a key with non-ASCII or control characters; expected printable ASCII.")
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
    """A client of one server. Threads may share it.

    url: such as http://localhost:8000. timeout_s: of each call, retries included. api_key: if the server requires one.
    transport: replaces httpx's, for tests. Proxies and certificates come from the environment (HTTP_PROXY, HTTPS_PROXY,
    ALL_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR).
    Raises ValueError when `url` is not an HTTP URL, ConfigurationError when the environment's proxy or certificates for
    it are unusable.
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
        server = _parse_url(url)
        self._proxy = proxy_for(server) if transport is None else None
        options = {**_options(server, timeout_s, api_key), **transport_options(server, self._proxy)}
        self._http = httpx.Client(**options, transport=transport)

    def segment(
        self,
        image: ImageInput,
        *,
        overlay: bool = False,
        confidence: bool = False,
        tile: bool | str = "auto",
        classes: Sequence[str] = (),
    ) -> Segmentation:
        """Segment an image: assign a class to each pixel.

        image: a path, the bytes of a file, a Pillow image, or an (H, W, 3) uint8 RGB array.
        overlay, confidence: request these images too. tile: "auto", "height", True or False, how the image is
        scaled down to the model's input; see POST /segment in the server's /docs.
        classes: return only these, by name or id; "road=drivable" renames a class, and merges those with the same new
        name; "sky=" leaves one out; "*" keeps all others.
        Raises ClientError; OSError, TypeError or ValueError when `image` can't be read.
        """
        params = query_params(overlay=overlay, confidence=confidence, tile=tile, classes=classes)
        return parse_segmentation(self._send(**_segment_request(encode_image(image), params)))

    def classes(self) -> ClassTable:
        """Id, name and colour of each class of the model. Raises ClientError."""
        return parse_class_table(self._send("GET", "classes"))

    def ready(self) -> bool:
        """Whether the server accepts requests; False also when it can't be reached."""
        try:
            return self._http.get("healthz/ready").is_success
        except httpx.RequestError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, method: str, url: str, **options: Any) -> httpx.Response:
        retry = RetryPolicy(self._timeout_s, self._proxy)
        while True:
            request = retry.prepare(self._http.build_request(method, url, **options))
            try:
                response = self._http.send(request)
            except httpx.RequestError as error:
                wait_s = retry.after_transport_error(request, error)
            else:
                if response.is_success:
                    return response
                wait_s = retry.after_error_response(response)
            time.sleep(wait_s)


class AsyncClient:
    """Client for asyncio: the same methods, awaited."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = TIMEOUT_S,
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        server = _parse_url(url)
        self._proxy = proxy_for(server) if transport is None else None
        options = {**_options(server, timeout_s, api_key), **transport_options(server, self._proxy)}
        self._http = httpx.AsyncClient(**options, transport=transport)

    async def segment(
        self,
        image: ImageInput,
        *,
        overlay: bool = False,
        confidence: bool = False,
        tile: bool | str = "auto",
        classes: Sequence[str] = (),
    ) -> Segmentation:
        """As Client.segment. Files are read and images encoded in a thread."""
        params = query_params(overlay=overlay, confidence=confidence, tile=tile, classes=classes)
        data = await asyncio.to_thread(encode_image, image)
        return parse_segmentation(await self._send(**_segment_request(data, params)))

    async def classes(self) -> ClassTable:
        """As Client.classes."""
        return parse_class_table(await self._send("GET", "classes"))

    async def ready(self) -> bool:
        """As Client.ready."""
        try:
            return (await self._http.get("healthz/ready")).is_success
        except httpx.RequestError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, method: str, url: str, **options: Any) -> httpx.Response:
        retry = RetryPolicy(self._timeout_s, self._proxy)
        while True:
            request = retry.prepare(self._http.build_request(method, url, **options))
            try:
                response = await self._http.send(request)
            except httpx.RequestError as error:
                wait_s = retry.after_transport_error(request, error)
            else:
                if response.is_success:
                    return response
                wait_s = retry.after_error_response(response)
            await asyncio.sleep(wait_s)
