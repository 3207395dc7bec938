"""ALIGNSEG_CORS_ORIGINS: how origins may be written, and what preflights of the APIs get."""

import re

import pytest

from service.errors import SettingsError
from service.http import cors
from tests.support.fake_engine import encoded, serving, striped

PNG = encoded(striped())
ORIGIN = "https://a.example"


async def preflight(
    origins: str, origin: str = ORIGIN, path: str = "/segment", method: str = "POST", **headers: str
) -> int:
    """The status of a preflight; 200 only if the browser may go on."""
    request_headers = {"Origin": origin, "Access-Control-Request-Method": method, **headers}
    async with serving(cors_origins=origins) as (client, _):
        response = await client.options(path, headers=request_headers)
        page = await client.get("/classes", headers={"Origin": origin})
    allowed = response.headers.get("access-control-allow-origin")
    assert (allowed in {origin, "*"}) == (page.headers.get("access-control-allow-origin") in {origin, "*"})
    return response.status_code if allowed in {origin, "*"} else 400


@pytest.mark.parametrize(
    ("origins", "origin"),
    [("https://a.example", ORIGIN), ("https://a.example/", ORIGIN), (" https://a.example/ , https://b.example", ORIGIN),
     ("HTTPS://A.Example", ORIGIN), ("https://a.example:443", ORIGIN), ("http://a.example:80/", "http://a.example"),
     ("http://localhost:5173/", "http://localhost:5173"), ("http://[::1]:8080", "http://[::1]:8080"),
     ("https://bücher.example", "https://xn--bcher-kva.example"), ("*", ORIGIN), ("https://b.example, *", ORIGIN),
     ("https://*.example.com", "https://app.example.com"), ("https://*.example.com/", "https://a.b.example.com"),
     ("http://*.example.com:8080", "http://a.example.com:8080"), ("null", "null"),
     ("chrome-extension://abcdef", "chrome-extension://abcdef")],
)  # fmt: skip
async def test_an_origin_matches_however_it_is_written(origins: str, origin: str) -> None:
    assert await preflight(origins, origin) == 200


@pytest.mark.parametrize(
    ("origins", "origin"),
    [("https://a.example", "https://a.example.evil.example"), ("https://a.example", "http://a.example"),
     ("https://a.example", "https://a.example:8443"), ("https://*.example.com", "https://example.com"),
     ("https://*.example.com", "https://a.example.com.evil.example"), ("https://*.example.com", "https://evilexample.com"),
     ("https://*.example.com", "https://a.example.com:8443"), ("https://*.example.com", "https://evil/.example.com"),
     ("https://a.example", "null")],
)  # fmt: skip
async def test_another_origin_does_not_match(origins: str, origin: str) -> None:
    assert await preflight(origins, origin) == 400


@pytest.mark.parametrize(
    "origins",
    ["foo", "a.example", "localhost:3000", "https://", "https://*", "https://a.*.com", "*.example.com", "https://*a.com",
     "https://a.example/app", "https://a.example?x", "https://a.example#x", "https://me@a.example", "https://a:99999",
     "https://a.example, foo", "https://a b.example", "https://[::1", "http://**"],
)  # fmt: skip
def test_what_is_no_origin_is_rejected_at_the_start(origins: str) -> None:
    with pytest.raises(SettingsError, match=r"is not an origin\. Expected scheme, host and") as raised:
        cors.options(origins)
    assert re.match(r"ALIGNSEG_CORS_ORIGINS contains '[^']+'", str(raised.value))


HEADERS = [
    "inference-header-content-length, content-type", "traceparent", "tracestate", "traceparent,tracestate,baggage",
    "Inference-Header-Content-Length", "x-api-key, x-request-id, x-request-timeout-ms", "authorization,content-type",
]  # fmt: skip


@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("path", ["/segment", "/segment/", "/", "/v2/models/fake/infer", "/classes"])
async def test_a_preflight_of_every_api_is_answered(path: str, headers: str) -> None:
    assert await preflight(ORIGIN, path=path, **{"Access-Control-Request-Headers": headers}) == 200
    assert await preflight("*", path=path, **{"Access-Control-Request-Headers": headers}) == 200


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 200), ("POST", 200), ("DELETE", 400)])
async def test_a_preflight_names_a_method_of_the_api(method: str, status: int) -> None:
    assert await preflight(ORIGIN, method=method) == status


async def test_a_page_may_read_the_headers_of_responses() -> None:
    async with serving(cors_origins=ORIGIN) as (client, _):
        response = await client.post("/segment", content=PNG, headers={"Origin": ORIGIN})
    exposed = response.headers["access-control-expose-headers"]
    for name in ("Inference-Header-Content-Length", "Link", "Retry-After", "Server-Timing", "X-Request-Id"):
        assert name in exposed


async def test_a_page_of_the_internet_may_call_a_server_of_a_private_network() -> None:
    """Chromium asks so before a public page calls a private address."""
    assert await preflight(ORIGIN, **{"Access-Control-Request-Private-Network": "true"}) == 200
    assert await preflight(ORIGIN, "https://other.example", **{"Access-Control-Request-Private-Network": "true"}) == 400
