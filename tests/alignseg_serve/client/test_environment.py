"""The environment's proxy and certificates: only what concerns the client's own server, and sentences when unusable."""

import socket
import ssl
import sys
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from alignseg_serve.client import AsyncClient, Client, environment
from alignseg_serve.client.errors import ClientError, ConfigurationError, ConnectionFailed
from tests.support.live_server import live

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
CONSTRUCTORS = [Client, AsyncClient]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("construct", CONSTRUCTORS)
@pytest.mark.parametrize(
    "variables",
    [
        {"ALL_PROXY": "socks5://proxy:1080", "NO_PROXY": "127.0.0.1"},
        {"ALL_PROXY": "socks4://proxy:1080", "NO_PROXY": "10.0.0.0/8,127.0.0.0/8"},
        {"HTTP_PROXY": "http://[broken", "NO_PROXY": "*"},
        {"HTTPS_PROXY": "socks5://proxy:1080"},
        {"NO_PROXY": "[::1]"},
        {"NO_PROXY": "[::1]:8000, ::1, [, http://, ,fe80::/10"},
        {"SSL_CERT_FILE": "/no/such/file.pem"},
        {"SSL_CERT_DIR": "/no/such/folder"},
    ],
)  # fmt: skip
def test_values_that_do_not_concern_the_server_change_nothing(
    construct: type, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    construct("http://127.0.0.1:8000")


@pytest.mark.parametrize("construct", CONSTRUCTORS)
@pytest.mark.parametrize(
    ("variables", "parts"),
    [
        ({"ALL_PROXY": "socks5://me:secret@proxy:1080"}, ["ALL_PROXY=socks5://proxy:1080", "httpx[socks]"]),
        ({"HTTPS_PROXY": "ftp://proxy"}, ["HTTPS_PROXY: got ftp://proxy", "http://proxy:3128"]),
        ({"HTTPS_PROXY": "http://[broken"}, ["HTTPS_PROXY: got", "expected a URL"]),
        ({"HTTPS_PROXY": "http://[zz]"}, ["HTTPS_PROXY is not a URL"]),
        ({"HTTPS_PROXY": "http://proxy:99999999"}, ["HTTPS_PROXY: got http://proxy:99999999"]),
        ({"HTTPS_PROXY": "http://"}, ["HTTPS_PROXY: got", "expected a URL"]),
        ({"SSL_CERT_FILE": "/no/such/file.pem"}, ["SSL_CERT_FILE=/no/such/file.pem", "No such file"]),
        ({"SSL_CERT_FILE": __file__}, [f"SSL_CERT_FILE={__file__}", "PEM"]),
        ({"SSL_CERT_DIR": "/no/such/folder"}, ["SSL_CERT_DIR=/no/such/folder", "no such folder"]),
    ],
)  # fmt: skip
def test_an_unusable_value_is_named(
    construct: type, variables: dict[str, str], parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        construct("https://street.example")
    assert isinstance(caught.value, ValueError)
    assert all(part in str(caught.value) for part in parts), caught.value
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "no_proxy", "excluded"),
    [
        ("http://localhost:8000", "localhost", True),
        ("http://gpu.example:8000", "example", True),
        ("http://gpu.example:8000", ".example", True),
        ("http://gpu.example:8000", "*.example", True),
        ("http://myexample:8000", "example", False),
        ("http://gpu:8000", "gpu:8000", True),
        ("http://gpu:8000", "gpu:80", False),
        ("http://gpu", "gpu:80", True),
        ("http://[::1]:8000", "[::1]", True),
        ("http://[::1]:8000", "::1", True),
        ("http://[::1]:8000", "[::1]:9000", False),
        ("http://10.1.2.3", "10.0.0.0/8", True),
        ("http://11.1.2.3", "10.0.0.0/8", False),
        ("http://gpu", "", False),
    ],
)  # fmt: skip
def test_no_proxy(url: str, no_proxy: str, excluded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "proxy:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    proxy = environment.proxy_for(httpx.URL(url))
    assert (proxy is None) == excluded
    assert proxy is None or proxy.label == "http://proxy:3128"


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://a:99999999", "http://", "gpu:8000", "ftp://gpu", "", "http://\n"]
)
def test_what_is_not_an_http_url_is_rejected(url: str) -> None:
    with pytest.raises(ValueError, match="expected a URL"):
        Client(url)


@pytest.mark.parametrize("key", ["schlüssel", "a\nb"])
def test_an_api_key_that_no_header_can_hold_is_rejected(key: str) -> None:
    with pytest.raises(ValueError, match="api_key"):
        Client("http://gpu", api_key=key)


def test_a_dead_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = f"http://user:secret@127.0.0.1:{free_port()}"
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with live() as url, Client(url) as client:
        with pytest.raises(ConnectionFailed) as caught:
            client.classes()
        assert proxy.replace("user:secret@", "") + " (HTTP_PROXY)" in str(caught.value)
        assert "NO_PROXY=127.0.0.1" in str(caught.value)
        assert "secret" not in str(caught.value)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with Client(url) as direct:
            assert direct.ready()


def test_a_dead_server_is_named_without_a_proxy() -> None:
    with (
        Client(f"http://127.0.0.1:{free_port()}") as client,
        pytest.raises(ConnectionFailed, match="server is running"),
    ):
        client.classes()


def test_https_to_a_plain_server_is_not_called_a_dead_server() -> None:
    with live() as url, Client(url.replace("http", "https")) as client, pytest.raises(ClientError) as caught:
        client.classes()
    assert "Check that the server uses https" in str(caught.value)


@pytest.fixture
def proxied_urls() -> Generator[tuple[str, list[str]], None, None]:
    """A proxy that answers 403 to everything, and the URLs that it was sent."""
    urls: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            urls.append(self.path)
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", urls
    server.shutdown()
    server.server_close()


async def test_requests_go_through_the_proxy(
    proxied_urls: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, urls = proxied_urls
    monkeypatch.setenv("http_proxy", address)
    with Client("http://gpu.example") as client, pytest.raises(ClientError):
        client.classes()
    async with AsyncClient("http://gpu.example") as asynchronous:
        assert not await asynchronous.ready()
    assert urls == ["http://gpu.example/classes", "http://gpu.example/healthz/ready"]


def test_trusted_certificates_come_from_ssl_cert_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import certifi

    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    options = environment.transport_options(httpx.URL("https://gpu"), None)
    assert isinstance(options["verify"], ssl.SSLContext)
    assert options["verify"].cert_store_stats()["x509_ca"] > 50
