"""ALIGNSEG_CORS_ORIGINS: which web pages of other origins may call the API, and with which headers."""

import re
from typing import Any, Final
from urllib.parse import urlsplit

from service.errors import SettingsError
from service.http.kserve_codec import JSON_LENGTH

_ANY: Final = "*"
_OPAQUE: Final = "null"  # the origin of pages opened as files
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_REQUEST_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    JSON_LENGTH,
    "X-API-Key",
    "X-Request-Id",
    "X-Request-Timeout-Ms",
    "baggage",
    "traceparent",
    "tracestate",
)
_RESPONSE_HEADERS: Final = (JSON_LENGTH, "Link", "Retry-After", "Retry-After-Ms", "Server-Timing", "X-Request-Id")


def options(origins: str) -> dict[str, Any]:
    """Arguments of Starlette's CORSMiddleware for origins separated by commas. No cookies, so no credentials.

    Raises SettingsError for what is not an origin.
    """
    parsed = [_parse(origin.strip()) for origin in origins.split(",") if origin.strip()]
    patterns = [
        re.escape(origin).replace(r"\*", r"[a-z0-9.-]+") for origin in parsed if _ANY in origin and origin != _ANY
    ]
    return {
        "allow_origins": [origin for origin in parsed if origin == _ANY or _ANY not in origin],
        "allow_origin_regex": "|".join(patterns) or None,
        "allow_methods": ["GET", "HEAD", "POST"],
        "allow_headers": list(_REQUEST_HEADERS),
        "allow_private_network": True,  # a public page may call a server of the user's network, if its origin is listed
        "expose_headers": list(_RESPONSE_HEADERS),
        "max_age": 600,
    }


def _parse(origin: str) -> str:
    """The origin as browsers send it: in lower case, ASCII, without a default port and without a slash at its end."""
    if origin in {_ANY, _OPAQUE}:
        return origin
    try:
        url = urlsplit(origin)
        host, port = url.hostname or "", url.port
        host = f"[{host}]" if ":" in host else host.encode("idna").decode("ascii")
    except ValueError as error:  # a port out of range, an invalid address, and what IDNA forbids
        raise _not_an_origin(origin) from error
    is_origin = url.scheme and host and url.path in {"", "/"} and not url.query and not url.fragment
    if not is_origin or "@" in url.netloc or not re.fullmatch(r"(\*\.)?[^*\s]+", host):
        raise _not_an_origin(origin)
    suffix = "" if port in {None, _DEFAULT_PORTS.get(url.scheme)} else f":{port}"
    return f"{url.scheme}://{host}{suffix}"


def _not_an_origin(origin: str) -> SettingsError:
    return SettingsError(
        f"ALIGNSEG_CORS_ORIGINS contains {origin[:80]!r}, which is not an origin. Expected scheme, host and, unless it "
        "is the default, port, such as https://app.example.com or http://localhost:5173; https://*.example.com for all "
        "subdomains; or * for every page. An origin has no path."
    )
