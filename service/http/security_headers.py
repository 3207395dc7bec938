"""Headers that tell browsers what our documents may do: nothing that they don't need; and the paths without a lock."""

from collections.abc import Mapping
from typing import Final

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
_POLICY: Final = b"content-security-policy"
# What each answer gets, unless it brings its own.
HEADERS: Final = {**_COMMON, _POLICY: _OWN}
# Asked by machines that have no key, and so often that no log wants to hear of each.
PROBES: Final = frozenset(
    {"/health", "/healthz/live", "/healthz/ready", "/metrics", "/v2/health/live", "/v2/health/ready"}
)
