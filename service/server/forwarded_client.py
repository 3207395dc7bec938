"""The client's address of a request that is answered before uvicorn's ProxyHeadersMiddleware sees it."""

from collections.abc import Iterable
from typing import Final

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

Address = tuple[str, int] | None
_FORWARDED_FOR: Final = b"x-forwarded-for"


class ForwardedClient:
    """Reads X-Forwarded-For from trusted proxies (FORWARDED_ALLOW_IPS), exactly as uvicorn does."""

    def __init__(self) -> None:
        trusted = uvicorn.Config(_unused, log_config=None).forwarded_allow_ips
        self._trusted = ProxyHeadersMiddleware(_unused, trusted).trusted_hosts

    def of(self, peer: Address, headers: Iterable[tuple[bytes, bytes]]) -> Address:
        """Return the client's address. peer: of the connection. headers: names in lower case."""
        if peer is None or peer[0] not in self._trusted:
            return peer
        values = [value for name, value in headers if name == _FORWARDED_FOR]
        host, port = self._trusted.get_trusted_client_address(b", ".join(values).decode("latin-1"))
        return (host, port) if host else peer


async def _unused(*_: object) -> None:
    """The application that the middleware would call."""
