"""API keys: which are accepted, where they are read from, and what needs none."""

import base64
import hmac
from pathlib import Path
from unittest.mock import Mock

import pytest

from service.errors import SettingsError
from service.http.auth import ApiKeys, load
from service.settings import Settings
from tests.support.fake_engine import encoded, serving, striped

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
async def test_a_request_is_authorised_by_any_of_the_key_headers(headers: dict[str, str], status: int) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    async with serving(api_keys="secret-1, secret-2") as (client, _):
        response = await client.post("/segment", content=PNG, headers=raw)
    assert response.status_code == status
    if status == 401:
        assert response.headers["www-authenticate"].startswith("Bearer, Basic")
        assert response.json()["type"] == "urn:alignseg:problem:unauthorized"
        assert "secret" not in response.text


async def test_only_health_and_metrics_need_no_key() -> None:
    async with serving(api_keys="secret") as (client, _):
        for path in ("/healthz/live", "/healthz/ready", "/health", "/metrics"):
            assert (await client.get(path)).status_code == 200
        for path in ("/", "/docs", "/classes", "/openapi.json"):
            assert (await client.get(path)).status_code == 401


async def test_openapi_documents_how_to_send_a_key_if_keys_are_set() -> None:
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
        "/ping",
        "/metrics",
        "/v2/health/live",
        "/v2/health/ready",
    }


@pytest.mark.parametrize("header", [(b"x-api-key", b""), (b"authorization", b"Bearer ")])
async def test_a_key_may_contain_characters_beyond_ascii(header: tuple[bytes, bytes]) -> None:
    name, before = header
    statuses = []
    async with serving(api_keys="schl\u00fcssel") as (client, _):
        for key in ("schl\u00fcssel".encode(), "schl\u00fcssel".encode("latin-1"), b"\xff"):
            response = await client.post("/segment", content=PNG, headers=[(name, before + key)])
            statuses.append(response.status_code)
    assert statuses == [200, 401, 401]


def test_keys_are_read_from_a_file_with_comments(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# keys\nalpha  # the lab\n\nbeta\n")
    keys = load(Settings(api_keys_file=path, api_keys="gamma"))
    assert [keys.contains(key) for key in ("alpha", "beta", "gamma", "# keys", "", "delta")] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("content", [None, "", "# nothing\n", b"\xff\xfe"])
def test_a_file_without_keys_is_an_error(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match="ALIGNSEG_API_KEYS_FILE"):
        load(Settings(api_keys_file=path))


@pytest.mark.parametrize("given", [" , ", ",", " "])
def test_a_list_without_keys_is_an_error(given: str) -> None:
    with pytest.raises(SettingsError, match="ALIGNSEG_API_KEYS"):
        load(Settings(api_keys=given))


def test_a_hash_inside_a_key_is_no_comment(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("al#pha\nbeta\t# comment\n")
    keys = load(Settings(api_keys_file=path))
    assert [keys.contains(key) for key in ("al#pha", "beta", "al")] == [True, True, False]


@pytest.mark.parametrize("key", ["first", "last", "none", ""])
def test_every_key_is_compared_whichever_matches(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare = Mock(side_effect=hmac.compare_digest)
    keys = ApiKeys(["first", "second", "last"])
    monkeypatch.setattr("service.http.auth.hmac.compare_digest", compare)
    assert keys.contains(key) == (key in {"first", "last"})
    assert [len(part) for call in compare.call_args_list for part in call.args] == [32] * 6


def test_without_settings_there_are_no_keys() -> None:
    assert not load(Settings())
    assert not ApiKeys([]).contains("")


def test_keys_appear_in_no_repr() -> None:
    settings = Settings(api_keys="secret")
    assert "secret" not in repr(settings)
    assert "secret" not in str(vars(load(settings)))
