"""Headers that tell browsers what our documents may do: nothing that they don't need."""

from collections.abc import Mapping
from typing import Final

from starlette.types import Scope

_COMMON: Final[Mapping[bytes, bytes]] = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
}
# The page: its own files, the pictures a person picks (blob:), no inline code, no other host.
_OWN: Final = (
    b"default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'"
)
# FastAPI's documentation fetches Swagger and ReDoc from a CDN and starts them by an inline script.
_DOCS: Final = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; "
    b"style-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net https://fonts.googleapis.com; "
    b"font-src https://fonts.gstatic.com; img-src 'self' data: https://fastapi.tiangolo.com https://cdn.redoc.ly; "
    b"worker-src blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_POLICY: Final = b"content-security-policy"


def headers_for(scope: Scope) -> Mapping[bytes, bytes]:
    """What each answer gets, unless it brings its own."""
    return _WITH_DOCS if scope["path"] in {"/docs", "/redoc"} else _WITH_OWN


_WITH_OWN: Final = {**_COMMON, _POLICY: _OWN}
_WITH_DOCS: Final = {**_COMMON, _POLICY: _DOCS}
