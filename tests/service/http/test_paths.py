"""Slashes at the end of a path, and ALIGNSEG_ROOT_PATH behind proxies that remove it and that do not."""

import pytest
from pydantic import ValidationError

from service.app import create_app
from service.errors import SettingsError
from service.http.middleware.paths import route_path
from service.settings import Settings
from tests.support.fake_engine import FakeEngine, encoded, manifest, serving, striped

PNG = encoded(striped())
METHODS = {
    "/segment/": "POST", "/segment//": "POST", "/classes/": "GET", "/v2/": "GET", "/v2/health/ready/": "GET",
    "/v2/models/fake/": "GET", "/health/": "GET", "/healthz/live/": "GET", "/metrics/": "GET",
}  # fmt: skip


@pytest.mark.parametrize("path", METHODS)
async def test_a_slash_at_the_end_makes_no_difference(path: str) -> None:
    async with serving() as (client, _):
        response = await client.request(METHODS[path], path, content=PNG)
        assert response.status_code == 200, response.text
        assert (await client.request("DELETE", path)).status_code == 405
        assert (await client.get("/nothing/")).status_code == 404
        assert (await client.get("/metrics")).text.count(f'route="{path}"') == 0


async def test_head_and_options_know_paths_with_a_slash() -> None:
    async with serving() as (client, _):
        assert (await client.head("/classes/")).status_code == 200
        refused = await client.options("/segment/")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


async def test_probes_need_no_key_with_a_slash_and_nothing_else_gets_around_it() -> None:
    async with serving(api_keys="secret", root_path="/alignseg") as (client, _):
        for prefix in ("", "/alignseg"):
            assert (await client.get(f"{prefix}/healthz/ready/")).status_code == 200
            for path in ("/segment/", "/classes/", "/health/x", "/metrics/x"):
                assert (await client.post(f"{prefix}{path}", content=PNG)).status_code == 401


@pytest.mark.parametrize("root_path", ["/alignseg", "/alignseg/", "alignseg", "/a/b"])
@pytest.mark.parametrize("removed", [False, True], ids=["prefix kept", "prefix removed"])
async def test_behind_a_prefix_all_paths_work_and_links_have_it(root_path: str, removed: bool) -> None:
    prefix = "/" + root_path.strip("/")
    base = "" if removed else prefix
    async with serving(root_path=root_path) as (client, _):
        for path in ("/segment", "/segment/"):
            response = await client.post(base + path, content=PNG)
            assert response.status_code == 200
            assert response.headers["link"] == f'<{prefix}/classes>; rel="describedby"'
        for path in ("/", "/docs", "/page/app.js", "/docs/swagger-ui.css", "/classes", "/v2/models/fake", "/health"):
            assert (await client.get(base + path)).status_code == 200, path
        document = (await client.get(f"{base}/openapi.json")).json()
        hugging_face = await client.post(base or "/", content=PNG)
    assert document["servers"] == [{"url": prefix}]
    assert hugging_face.json()[0]["label"] == "road"


async def test_without_a_prefix_links_are_as_before() -> None:
    async with serving() as (client, _):
        response = await client.post("/segment", content=PNG)
        assert "servers" not in (await client.get("/openapi.json")).json()
    assert response.headers["link"] == '</classes>; rel="describedby"'


async def test_no_client_chooses_the_prefix() -> None:
    """X-Forwarded-Prefix comes from whoever sends it: a shared cache would hand its links on to others."""
    async with serving() as (client, _):
        response = await client.post("/segment", content=PNG, headers={"X-Forwarded-Prefix": "/evil"})
        document = await client.get("/openapi.json", headers={"X-Forwarded-Prefix": "/evil"})
    assert "evil" not in response.headers["link"] + document.text


@pytest.mark.parametrize(
    ("address", "location"),
    [("/alignseg", "alignseg/"), ("/alignseg/docs/", "../docs"), ("/docs/", "../docs")],
)  # fmt: skip
async def test_a_page_has_one_address_because_its_files_have_relative_ones(address: str, location: str) -> None:
    async with serving(root_path="/alignseg") as (client, _):
        response = await client.get(address)
        assert (response.status_code, response.headers["location"]) == (307, location)
        assert (await client.get(address, follow_redirects=True)).status_code == 200


def test_only_a_whole_first_part_is_a_prefix() -> None:
    assert route_path("/alignsegment/x", "/alignseg") == "/alignsegment/x"
    assert route_path("/alignseg/alignseg/x", "/alignseg") == "/alignseg/x"
    assert route_path("//", "") == "/"


@pytest.mark.parametrize("value", ["https://a.example/alignseg", "/a b", '/a">', "/a//b", "/a?b", "/a\nb"])
def test_what_is_no_path_is_rejected(value: str) -> None:
    with pytest.raises(ValidationError, match="Expected a path such as /alignseg"):
        Settings(root_path=value)


@pytest.mark.parametrize("value", ["/segment", "/v2", "/docs", "/v2/models"])
def test_a_prefix_that_is_a_path_of_this_server_is_rejected(value: str) -> None:
    with pytest.raises(SettingsError, match=f"ALIGNSEG_ROOT_PATH is {value}, but this server has a path /"):
        create_app(Settings(root_path=value), [FakeEngine()], manifest())
