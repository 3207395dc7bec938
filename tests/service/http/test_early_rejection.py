import asyncio
import base64
import hmac
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from service.errors import SettingsError
from service.http.auth import ApiKeys, load
from service.settings import Settings
from tests.support.fake_engine import FakeEngine, Gate, encoded, serving, striped

PNG = encoded(striped())
BASIC = base64.b64encode(b"anybody:secret-2").decode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"X-API-Key": "secret"}, 401), ({"X-API-Key": "secret-1"}, 200),
     ({"Authorization": "Bearer secret-2"}, 200), ({"Authorization": "bearer secret-2"}, 200),
     ({"Authorization": "Bearer "}, 401), ({"Authorization": "secret-2"}, 401),
     ({"Authorization": f"Basic {BASIC}"}, 200), ({"Authorization": "Basic ???"}, 401),
     ({"Authorization": "Bearer \u00e4".encode("latin-1").decode("latin-1")}, 401)],
)  # fmt: skip
async def test_keys(headers: dict[str, str], status: int) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    async with serving(api_keys="secret-1, secret-2") as (client, _):
        response = await client.post("/segment", content=PNG, headers=raw)
    assert response.status_code == status
    if status == 401:
        assert response.headers["www-authenticate"].startswith("Bearer, Basic")
        assert response.json()["type"] == "urn:alignseg:problem:unauthorized"
        assert "secret" not in response.text


async def test_health_and_metrics_need_no_key_but_all_else_does() -> None:
    async with serving(api_keys="secret") as (client, _):
        for path in ("/healthz/live", "/healthz/ready", "/health", "/metrics"):
            assert (await client.get(path)).status_code == 200
        for path in ("/", "/docs", "/classes", "/openapi.json"):
            assert (await client.get(path)).status_code == 401


async def test_the_api_document_tells_how_to_send_a_key_where_one_is_needed() -> None:
    async with serving() as (client, _):
        without = (await client.get("/openapi.json")).json()
    async with serving(api_keys="secret") as (client, _):
        document = (await client.get("/openapi.json", headers={"X-API-Key": "secret"})).json()
    assert "security" not in without
    assert "securitySchemes" not in without["components"]
    schemes = document["components"]["securitySchemes"].values()
    assert {(s["type"], s.get("scheme") or s.get("name")) for s in schemes} == {
        ("http", "bearer"), ("http", "basic"), ("apiKey", "X-API-Key"),
    }  # fmt: skip
    assert document["security"] == [{name: []} for name in document["components"]["securitySchemes"]]  # any of them
    open_paths = {path for path, of in document["paths"].items() if all(o.get("security") == [] for o in of.values())}
    assert open_paths == {
        "/health",
        "/healthz/live",
        "/healthz/ready",
        "/metrics",
        "/v2/health/live",
        "/v2/health/ready",
    }


@pytest.mark.parametrize("header", [(b"x-api-key", b""), (b"authorization", b"Bearer ")])
async def test_a_key_beyond_ascii(header: tuple[bytes, bytes]) -> None:
    name, before = header
    statuses = []
    async with serving(api_keys="schl\u00fcssel") as (client, _):
        for key in ("schl\u00fcssel".encode(), "schl\u00fcssel".encode("latin-1"), b"\xff"):
            response = await client.post("/segment", content=PNG, headers=[(name, before + key)])
            statuses.append(response.status_code)
    assert statuses == [200, 401, 401]


def test_keys_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\nalpha  # the lab\n\nbeta\n")
    keys = load(Settings(api_keys_file=path, api_keys="gamma"))
    assert [keys.know(key) for key in ("alpha", "beta", "gamma", "# ours", "", "delta")] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("content", [None, "", "# nothing\n", b"\xff\xfe"])
def test_a_file_without_keys_does_not_leave_the_door_open(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match="ALIGNSEG_API_KEYS_FILE"):
        load(Settings(api_keys_file=path))


@pytest.mark.parametrize("given", [" , ", ",", " "])
def test_a_list_without_keys_does_not_leave_the_door_open(given: str) -> None:
    with pytest.raises(SettingsError, match="ALIGNSEG_API_KEYS"):
        load(Settings(api_keys=given))


def test_a_key_may_have_a_hash_within(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("al#pha\nbeta\t# ours\n")
    keys = load(Settings(api_keys_file=path))
    assert [keys.know(key) for key in ("al#pha", "beta", "al")] == [True, True, False]


@pytest.mark.parametrize("key", ["first", "last", "none", ""])
def test_every_key_is_compared_in_constant_time_whichever_it_is(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare = Mock(side_effect=hmac.compare_digest)
    keys = ApiKeys(["first", "second", "last"])
    monkeypatch.setattr("service.http.auth.hmac.compare_digest", compare)
    assert keys.know(key) == (key in {"first", "last"})
    assert [len(part) for call in compare.call_args_list for part in call.args] == [32] * 6


def test_no_keys_no_lock() -> None:
    assert not load(Settings())
    assert not ApiKeys([]).know("")


def test_keys_are_not_shown() -> None:
    settings = Settings(api_keys="secret")
    assert "secret" not in repr(settings)
    assert "secret" not in str(vars(load(settings)))


@pytest.mark.parametrize(
    ("request_", "status", "slug"),
    [({"headers": {f"x-{i}": "1" for i in range(101)}}, 431, "headers-too-large"),
     ({"headers": {"x": "1" * 33_000}}, 431, "headers-too-large"),
     ({"params": {"include": "a" * 9000}}, 414, "uri-too-long")],
)  # fmt: skip
async def test_every_dimension_of_a_head_is_bounded(
    request_: dict[str, dict[str, str]], status: int, slug: str
) -> None:
    async with serving() as (client, _):
        response = await client.post("/segment", content=PNG, **request_)  # type: ignore[arg-type]
    assert (response.status_code, response.json()["type"]) == (status, f"urn:alignseg:problem:{slug}")


async def test_no_cors_unless_origins_are_given() -> None:
    ask = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    async with serving() as (client, _):
        assert (await client.options("/segment", headers=ask)).status_code == 405
        assert "access-control-allow-origin" not in (await client.get("/classes", headers=ask)).headers
    async with serving(cors_origins="https://a.example, https://b.example", api_keys="secret") as (client, _):
        preflight = await client.options("/segment", headers=ask)
        refused = await client.post("/segment", content=PNG, headers={"Origin": "https://a.example"})
        other = await client.post("/segment", content=PNG, headers={"Origin": "https://evil.example"})
    assert preflight.headers["access-control-allow-origin"] == "https://a.example"
    assert refused.headers["access-control-allow-origin"] == "https://a.example"  # its page may read why
    assert "access-control-allow-credentials" not in preflight.headers
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "", "1e3", "\u0661", "1" * 10])
async def test_a_timeout_that_is_none_is_told(value: str) -> None:
    async with serving() as (client, _):
        headers = [(b"x-request-timeout-ms", value.encode())]
        response = await client.post("/segment", content=PNG, headers=headers)
    assert response.status_code == 400
    assert "whole number of milliseconds" in response.json()["detail"]


async def test_a_client_may_be_in_more_of_a_hurry_than_the_server() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(before=gate)) as (client, _):
        gate.opened.clear()
        began = time.monotonic()
        response = await client.post("/segment", content=PNG, headers={"X-Request-Timeout-Ms": "50"})
        assert time.monotonic() - began < 5
        gate.opened.set()
        assert response.status_code == 504
        ok = await client.post("/segment", content=PNG, headers={"X-Request-Timeout-Ms": "20000"})
        assert ok.status_code == 200


async def test_pictures_are_bounded_by_their_pixels_together() -> None:
    gate = Gate()
    gate.opened.set()
    engine = FakeEngine(max_batch=1, before=gate)
    large = encoded(striped(100, 100))
    async with serving(engine, max_pixels=10_000, max_pixels_in_flight=15_000) as (client, app):
        gate.entered.clear()
        gate.opened.clear()
        first = asyncio.create_task(client.post("/segment", content=large))
        await asyncio.to_thread(gate.entered.wait, 10)
        second = await client.post("/segment", content=large)
        gate.opened.set()
        assert (await first).status_code == 200
        assert (await client.post("/segment", content=large)).status_code == 200
        assert app.state.pipeline.pixels.reserved == 0
    assert second.status_code == 429
    assert "ALIGNSEG_MAX_PIXELS_IN_FLIGHT" in second.json()["detail"]


async def test_bodies_are_bounded_by_their_bytes_together() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(FakeEngine(before=gate), max_body_bytes=1000, max_bytes_in_flight=1050) as (client, _):
        gate.entered.clear()
        gate.opened.clear()
        first = asyncio.create_task(client.post("/segment", content=PNG))
        await asyncio.to_thread(gate.entered.wait, 10)

        async def unannounced() -> object:
            yield PNG

        second = await client.post("/segment", content=unannounced())  # counts as 1000
        third = await client.post("/segment", content=PNG[:20])
        gate.opened.set()
        assert (await first).status_code == 200
    assert (second.status_code, third.status_code) == (429, 400)
    assert "ALIGNSEG_MAX_BYTES_IN_FLIGHT" in second.json()["detail"]
