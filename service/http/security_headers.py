"""Security headers of every response, and the paths that need no API key."""

from collections.abc import Mapping
from typing import Final

_COMMON: Final[Mapping[bytes, bytes]] = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
}
# What the web page needs: its own files and the images that a user selects (blob:); no inline code, no other host.
_CONTENT_SECURITY_POLICY: Final = (
    b"default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'"
)
# Added to each response that does not set them itself.
HEADERS: Final = {**_COMMON, b"content-security-policy": _CONTENT_SECURITY_POLICY}
# Requested by machines that have no API key, and so often that they are not logged.
PROBE_PATHS: Final = frozenset(
    {"/health", "/healthz/live", "/healthz/ready", "/metrics", "/ping", "/v2/health/live", "/v2/health/ready"}
)
