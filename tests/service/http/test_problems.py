"""Errors that no route raises, and request ids."""

import asyncio
from unittest.mock import Mock

import anyio
import anyio.to_thread
import httpx
import pytest

from service.app import create_admin_app
from tests.support.fake_engine import encoded, serving, striped

PNG = encoded(striped())


async def test_an_unexpected_error_is_a_problem_without_internals() -> None:
    async with serving() as (client, app):
        app.state.pipeline.segment = lambda *_: 1 / 0
        response = await client.post("/segment", content=PNG, headers={"X-Request-Id": "mine-1"})
    assert response.status_code == 500
    assert response.json()["request_id"] == response.headers["x-request-id"] == "mine-1"
    assert "ZeroDivision" not in response.text


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/segment", "POST"), ("PUT", "/", "GET, HEAD, POST"), ("POST", "/classes", "GET, HEAD"),
     ("OPTIONS", "/metrics", "GET, HEAD")],
)  # fmt: skip
async def test_405_names_every_method_of_the_path(method: str, path: str, allowed: str) -> None:
    async with serving() as (client, _):
        response = await client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    if path != "/":
        assert response.json()["detail"].startswith(f"{path} does not support {method}. Supported: {allowed}.")


@pytest.mark.parametrize("path", ["/nowhere", "/segments", "/segment/x"])
async def test_an_unknown_path_is_a_404_with_a_hint(path: str) -> None:
    async with serving() as (client, _):
        response = await client.post(path, content=encoded(striped()))
    assert response.status_code == 404
    assert response.json()["detail"] == f"No such path: {path}. See GET /docs for all paths."


async def test_the_admin_port_does_not_point_to_docs_it_lacks() -> None:
    async with serving() as (_, app):
        transport = httpx.ASGITransport(create_admin_app(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as admin:
            assert (await admin.head("/healthz/ready")).status_code == 200
            response = await admin.get("/docs")
    assert response.json()["detail"] == "No such path: /docs."


async def test_a_safe_request_id_is_kept_and_others_are_replaced() -> None:
    async with serving() as (client, _):
        assert (await client.get("/classes", headers={"X-Request-Id": "abc-1"})).headers["x-request-id"] == "abc-1"
        generated = [(await client.get("/classes")).headers["x-request-id"] for _ in range(2)]
        unsafe = await client.get("/classes", headers={"X-Request-Id": "two words"})
    assert len(set(generated)) == 2
    assert " " not in unsafe.headers["x-request-id"]


async def test_an_error_response_needs_no_thread() -> None:
    threads = anyio.to_thread.current_default_thread_limiter()
    threads.total_tokens = 1
    async with serving() as (client, app):
        failing = app.state.pipeline.segment = Mock(side_effect=ZeroDivisionError)
        async with threads:  # no thread is left for error handlers
            responses = [
                await asyncio.wait_for(request, 120)
                for request in (
                    client.post("/segment", content=b"", headers={"Content-Type": "text/plain"}),
                    client.get("/nowhere"),
                    client.post("/segment", content=PNG),
                )
            ]
    assert [response.status_code for response in responses] == [415, 404, 500]
    assert failing.called
