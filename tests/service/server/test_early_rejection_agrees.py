"""FastReject, below ASGI, and the application give the same response to the same request at any load."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import orjson
import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from service.admission.controller import AdmissionController, Limits
from service.server import fast_reject, protocol
from tests.support.fake_engine import encoded, serving, striped


def early_rejection(app: FastAPI) -> Any:
    fast = fast_reject.for_app(app)
    assert fast is not None
    return fast.reject


PNG: Final = encoded(striped())
ORIGIN: Final = "https://a.example"
KEYS: Final = {
    "no key": "",
    "invalid key": "X-API-Key: wrong\r\n",
    "invalid bearer": "Authorization: Bearer wrong\r\n",
    "valid key with blanks around it": "X-API-Key: \t secret \t\r\n",
    "valid key": "x-api-key:\tsecret\r\n",
    "valid bearer": "Authorization: Bearer secret\r\n",
    "valid password": f"Authorization: Basic {base64.b64encode(b'any:secret').decode()}\r\n",
    "valid key after an invalid one": "X-API-Key: wrong\r\nX-API-Key: secret\r\n",
}
# Status of a POST with access while the server is full.
PATHS: Final = {
    "/segment": 429, "/segment?tile=true": 429, "/": 429, "/v2/models/fake/infer": 429, "/nothing": 404,
    "/segment/": 429, "/%73egment": 429, "/v2/models/a%2Fb/infer": 404, "/v2/models/a#/infer": 405, "/classes": 405,
    "/health": 405,
}  # fmt: skip
ORIGINS: Final = {
    "no origin": "",
    "known origin": f"Origin: {ORIGIN}\r\n",
    "other origin": "Origin: https://b.example\r\n",
}
PREFLIGHT: Final = f"Origin: {ORIGIN}\r\nAccess-Control-Request-Method: POST\r\n"
COMPARED: Final = (
    "content-type", "retry-after", "www-authenticate", "allow", "connection", "x-request-id", "vary",
    "access-control-allow-origin", "access-control-expose-headers", "x-content-type-options", "content-security-policy",
)  # fmt: skip
Reject = Callable[[bytes, protocol.Address], tuple[bytes, int] | None]


def message(path: str, headers: str, method: str = "POST") -> bytes:
    length = f"Content-Length: {len(PNG)}\r\n" if method == "POST" else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-Request-Id: a-1\r\n{length}{headers}\r\n"
    return head.encode() + (PNG if method == "POST" else b"")


@asynccontextmanager
async def listening(app: FastAPI, reject: Reject | None) -> AsyncGenerator[Callable[[bytes], Any], None]:
    """Sends one message to the application over TCP and returns the response. reject: the early rejection, if any."""
    config = uvicorn.Config(app, lifespan="off", **protocol.uvicorn_options(reject))
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: config.http_protocol_class(config, state, {}), "127.0.0.1", 0)

    async def send(data: bytes) -> httpx.Response:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(data)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        first, *lines = head.decode().strip().split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        size = int(dict(headers)["content-length"])
        response = httpx.Response(int(first.split()[1]), headers=headers, content=await reader.readexactly(size))
        writer.close()
        await writer.wait_closed()
        return response

    async with server:
        yield send


class CountingReject:
    """An early rejection that counts the messages it answered."""

    def __init__(self, reject: Reject) -> None:
        self.count = 0
        self._reject = reject

    def __call__(self, data: bytes, peer: protocol.Address) -> tuple[bytes, int] | None:
        rejection = self._reject(data, peer)
        self.count += rejection is not None
        return rejection


def fill(app: FastAPI) -> None:
    """Take the only permit, as a request whose body was read."""
    app.state.pipeline.admission.acquire().body_read()


def problem_type(response: httpx.Response) -> str | None:
    is_problem = response.headers["content-type"].startswith("application/problem+json")
    return str(orjson.loads(response.content)["type"]) if is_problem else None


def expected_status(key: str, path: str, with_keys: bool, full: bool) -> int:
    if with_keys and not key.startswith("valid") and path != "/health":
        return 401
    if PATHS[path] == 429 and not full:
        return 200 if path != "/v2/models/fake/infer" else 400  # a PNG is not a tensor
    return PATHS[path]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("cors", [False, True])
@pytest.mark.parametrize("with_keys", [False, True])
async def test_fast_reject_and_the_application_give_the_same_response(with_keys: bool, cors: bool, full: bool) -> None:
    settings = {"api_keys": "secret" if with_keys else "", "cors_origins": ORIGIN if cors else ""}
    async with serving(max_in_flight=1, **settings) as (_, app):
        fast = fast_reject.for_app(app)
        early = CountingReject(fast.reject) if fast is not None else None
        if full:
            fill(app)
        async with listening(app, early) as send_early, listening(app, None) as send:
            for path in PATHS:
                for key, key_header in KEYS.items():
                    for origin, origin_header in ORIGINS.items():
                        data, case = message(path, key_header + origin_header), (path, key, origin)
                        before = early.count if early is not None else 0
                        one, other = await send_early(data), await send(data)
                        assert (case, one.status_code) == (case, expected_status(key, path, with_keys, full))
                        assert (case, other.status_code) == (case, one.status_code)
                        assert (case, problem_type(one)) == (case, problem_type(other))
                        for name in COMPARED:
                            assert (case, name, one.headers.get(name)) == (case, name, other.headers.get(name))
                        was_early = early is not None and early.count > before
                        assert (case, was_early) == (case, one.status_code == 429 and not cors and "%" not in path)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("cors", [False, True])
@pytest.mark.parametrize("with_keys", [False, True])
async def test_a_preflight_is_never_rejected_for_load(with_keys: bool, cors: bool, full: bool) -> None:
    settings = {"api_keys": "secret" if with_keys else "", "cors_origins": ORIGIN if cors else ""}
    async with serving(max_in_flight=1, **settings) as (_, app):
        fast = fast_reject.for_app(app)
        if full:
            fill(app)
        data = message("/segment", PREFLIGHT, "OPTIONS")
        reject = fast.reject if fast is not None else None
        async with listening(app, reject) as send_early, listening(app, None) as send:
            one, other = await send_early(data), await send(data)
    assert one.status_code == other.status_code == (200 if cors else 401 if with_keys else 405)
    assert one.headers.get("access-control-allow-origin") == (ORIGIN if cors else None)
    assert {name: one.headers.get(name) for name in COMPARED} == {name: other.headers.get(name) for name in COMPARED}


@pytest.mark.parametrize("early", [False, True])
async def test_only_authorised_requests_to_a_post_path_prolong_an_overload(early: bool) -> None:
    now = [100.0]
    async with serving(api_keys="secret") as (_, app):
        limits = Limits(count=100, overload_latency_s=0.05, min_active=1)
        admission = app.state.pipeline.admission = AdmissionController(limits, clock=lambda: now[0])
        for _ in range(20):  # 10 requests a second
            permit = admission.acquire()
            permit.body_read()
            now[0] += 0.1
            permit.release()
        assert admission.limit() == 100
        admission.limits = Limits(count=1, overload_latency_s=0.05, min_active=1)
        fill(app)
        admission_full = admission.limits
        async with listening(app, early_rejection(app) if early else None) as send:

            async def limit_after(data: bytes, status: int) -> int:
                admission.limits = admission_full
                now[0] += 2  # the latest overload, if there was any, is over
                assert (await send(data)).status_code == status
                admission.limits = limits
                return admission.limit()

            for key in ("no key", "invalid key", "invalid bearer"):
                assert await limit_after(message("/segment", KEYS[key]), 401) == 100
            assert await limit_after(message("/nothing", KEYS["valid key"]), 404) == 100
            assert await limit_after(message("/classes", KEYS["valid key"]), 405) == 100
            assert await limit_after(message("/segment", KEYS["valid key"]), 429) == 1


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("trusted", [False, True])
async def test_the_log_names_the_client_also_behind_a_trusted_proxy(
    trusted: bool, early: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.1" if trusted else "10.0.0.0/8")
    caplog.set_level("INFO", "alignseg.access")
    async with serving(max_in_flight=1) as (_, app):
        fill(app)
        async with listening(app, early_rejection(app) if early else None) as send:
            for forwarded in ("X-Forwarded-For: 192.0.2.7, 203.0.113.9\r\n", "X-Forwarded-For: 2001:db8::1\r\n", ""):
                assert (await send(message("/segment", forwarded))).status_code == 429
    clients = [record.fields["client"] for record in caplog.records if record.name == "alignseg.access"]
    assert clients == (["203.0.113.9", "2001:db8::1", "127.0.0.1"] if trusted else ["127.0.0.1"] * 3)


async def test_too_many_headers_are_left_to_the_application() -> None:
    async with serving(max_in_flight=1) as (_, app):
        fill(app)
        async with listening(app, early_rejection(app)) as send:
            response = await send(message("/segment", "A: b\r\n" * 100))
    assert response.status_code == 431


async def test_a_draining_server_still_answers_404_for_unknown_paths() -> None:
    async with serving() as (_, app):
        app.state.pipeline.stop_admitting()
        async with listening(app, early_rejection(app)) as send_early, listening(app, None) as send:
            for send_one in (send_early, send):
                assert (await send_one(message("/segment", ""))).status_code == 503
                assert (await send_one(message("/nothing", ""))).status_code == 404
