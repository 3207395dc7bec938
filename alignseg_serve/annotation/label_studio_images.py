"""Reads the images of Label Studio's tasks: from its own origin, with its token, and from nowhere else."""

from typing import Final

import httpx

from service.errors import AlignSegError

MAX_BYTES: Final = 256 * 2**20
TIMEOUT_S: Final = 30.0


class ImageUnavailable(Exception):
    """The image of one task can't be read; those of others can."""


class LabelStudioImages:
    """Threads may share it. token: a legacy token or a personal access token (a JWT) of Label Studio."""

    def __init__(self, url: str, token: str, transport: httpx.BaseTransport | None = None) -> None:
        """Raises AlignSegError when `url` is not an HTTP URL."""
        self._url = httpx.URL(url.rstrip("/") + "/")
        if self._url.scheme not in {"http", "https"} or not self._url.host:
            raise AlignSegError(f"--label-studio: got {url!r}; expected a URL such as http://localhost:8080.")
        self._token = token
        self._http = httpx.Client(timeout=TIMEOUT_S, transport=transport)  # follows no redirects: they may lead away
        self._authorization = None if self._is_refresh_token else f"Token {token}"

    def read(self, address: object) -> bytes:
        """The file of a task's image. address: such as /data/upload/1/a.jpg. Raises ImageUnavailable."""
        url = self._on_our_origin(address)
        try:
            for _ in range(2):  # access tokens expire
                status, data = self._get(url, self._authorization or self._refresh())
                if status != httpx.codes.UNAUTHORIZED or not self._is_refresh_token:
                    break
                self._authorization = None
        except httpx.HTTPError as error:
            raise ImageUnavailable(f"{url}: {error}") from error
        if status != httpx.codes.OK:
            hint = "Set LABEL_STUDIO_API_KEY to a valid token." if status in {401, 403} else "Expected the image, 200."
            raise ImageUnavailable(f"{url} returned {status}. {hint}")
        return data

    @property
    def _is_refresh_token(self) -> bool:
        return self._token.count(".") == 2  # header.payload.signature

    def _on_our_origin(self, address: object) -> httpx.URL:
        try:
            url = self._url.join(str(address))
        except httpx.InvalidURL as error:
            raise ImageUnavailable(f"{address!r} is not a URL: {error}.") from error
        if not isinstance(address, str) or (url.scheme, url.host, url.port) != (
            self._url.scheme,
            self._url.host,
            self._url.port,
        ):
            raise ImageUnavailable(
                f"{address!r} is not on {self._url}. Only images that Label Studio itself sends are read: upload them, "
                "or serve them through Label Studio's storage."
            )
        return url

    def _get(self, url: httpx.URL, authorization: str) -> tuple[int, bytes]:
        """The status and, for 200, the body. Raises httpx.HTTPError, ImageUnavailable when it is too large."""
        with self._http.stream("GET", url, headers={"Authorization": authorization}) as response:
            if response.status_code != httpx.codes.OK:
                return response.status_code, b""
            data = bytearray()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > MAX_BYTES:
                    raise ImageUnavailable(f"{url} has more than {MAX_BYTES:,} bytes.")
            return response.status_code, bytes(data)

    def _refresh(self) -> str:
        response = self._http.post(self._url.join("api/token/refresh"), json={"refresh": self._token})
        if response.status_code != httpx.codes.OK:
            raise ImageUnavailable(
                f"{response.url} returned {response.status_code}. Set LABEL_STUDIO_API_KEY to a valid token."
            )
        self._authorization = f"Bearer {response.json()['access']}"
        return self._authorization

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
