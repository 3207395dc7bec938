"""Proxy and certificates of one server, from the environment variables that curl and httpx read too.

httpx reads them for every possible host when a client is constructed, so that one invalid value fails a client which
it does not concern. Here only what applies to the client's own server is read.
"""

import importlib.util
import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.request import getproxies

import httpx

from alignseg_serve.client.errors import ConfigurationError

_SCHEMES: Final = ("http", "https", "socks5", "socks5h")
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the environment variable that names it."""

    url: httpx.URL
    variable: str

    @property
    def label(self) -> str:
        """The URL for messages."""
        return _label(self.url)


def proxy_for(server: httpx.URL) -> Proxy | None:
    """The proxy for `server`; None when there is none or NO_PROXY excludes the server. Raises ConfigurationError."""
    proxies = getproxies()
    scheme = next((name for name in (server.scheme, "all") if proxies.get(name)), None)
    if scheme is None or _is_excluded(server, proxies.get("no", "")):
        return None
    return _parse(proxies[scheme], f"{scheme.upper()}_PROXY", server.host)


def transport_options(server: httpx.URL, proxy: Proxy | None) -> dict[str, Any]:
    """Arguments of httpx.Client for `server`. Raises ConfigurationError when the certificates can't be read."""
    needs_certificates = "https" in (server.scheme, proxy.url.scheme if proxy else "")
    # Redirects are not followed, so a client of an http:// server needs no certificates, which take 20 ms to read.
    context: ssl.SSLContext | bool = _ssl_context() if needs_certificates else False
    options: dict[str, Any] = {"trust_env": False, "verify": context}
    if proxy is not None:
        is_tls = isinstance(context, ssl.SSLContext) and proxy.url.scheme == "https"
        options["proxy"] = httpx.Proxy(proxy.url, ssl_context=context if is_tls else None)  # type: ignore[arg-type]
    return options


def _parse(text: str, variable: str, host: str) -> Proxy:
    without = f"Correct it, or exclude the server: NO_PROXY={host}"
    try:
        url = httpx.URL(text if "://" in text else f"http://{text}")
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigurationError(f"{variable} is not a URL: {error}. {without}") from None
    if url.scheme not in _SCHEMES or not has_address(url):
        raise ConfigurationError(
            f"{variable}: got {_label(url)}; expected a URL such as http://proxy:3128, with one of the schemes "
            f"{', '.join(_SCHEMES)}. {without}"
        )
    if url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ConfigurationError(
            f"{variable}={_label(url)}: a SOCKS proxy needs the package socksio, which is not installed. "
            f"Install it with: pip install 'httpx[socks]'. Or exclude the server: NO_PROXY={host}"
        )
    return Proxy(url, variable)


def has_address(url: httpx.URL) -> bool:
    """Whether the URL has a host and a possible port; httpx percent-encodes what no host may contain."""
    return bool(url.host) and "%" not in url.host and (url.port is None or url.port <= 65535)


def _label(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}"


def _is_excluded(server: httpx.URL, no_proxy: str) -> bool:
    """Whether a list such as "localhost, .example.com, 10.0.0.0/8, [::1]:8000, *" contains the server."""
    return any(_matches(server, entry.strip().lower()) for entry in no_proxy.split(",") if entry.strip())


def _matches(server: httpx.URL, entry: str) -> bool:
    if entry == "*":
        return True
    name, port = _split_port(entry.rpartition("://")[2].rstrip("/"))
    if port is not None and port != (server.port or _PORTS.get(server.scheme)):
        return False
    host = server.host.lower().rstrip(".")
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False)
    except ValueError:  # one of the two is a name
        suffix = name.removeprefix("*").strip(".")
        return bool(suffix) and (host == suffix or host.endswith("." + suffix))


def _split_port(entry: str) -> tuple[str, int | None]:
    """The host or network and the port of "host:80", "[::1]:80", "[::1]" or "::1"."""
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        port = rest.removeprefix(":")
    elif entry.count(":") == 1:
        name, port = entry.split(":")
    else:
        name, port = entry, ""
    return name, int(port) if port.isdecimal() else None


def _ssl_context() -> ssl.SSLContext:
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not file and not folder:
        return httpx.create_ssl_context(trust_env=False)
    variable, path = ("SSL_CERT_FILE", file) if file else ("SSL_CERT_DIR", folder)
    try:
        if not file and not Path(str(folder)).is_dir():
            raise FileNotFoundError("no such folder")
        return ssl.create_default_context(cafile=file or None, capath=None if file else folder)
    except OSError as error:  # ssl.SSLError too, for a file without certificates
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"{variable}={path} can't be read: {reason}. Correct the path of the trusted certificates (PEM), or unset "
            f"{variable}."
        ) from None
