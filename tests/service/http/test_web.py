"""The static files of the page and of Swagger UI: types, caching, and nothing from other hosts."""

import re
from pathlib import Path

import pytest

from tests.support.fake_engine import serving

WEB = Path(__file__).resolve().parents[3] / "service" / "web"


async def test_the_root_serves_the_page() -> None:
    async with serving() as (client, _):
        response = await client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", sorted(p.name for p in WEB.glob("*.*") if p.suffix != ".py"))
async def test_every_file_is_served_with_its_type(name: str) -> None:
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
    async with serving() as (client, _):
        response = await client.get(f"/page/{name}")
    assert response.content == (WEB / name).read_bytes()
    assert response.headers["content-type"].startswith(types.get(Path(name).suffix, "text/html"))


async def test_a_cached_file_gets_304() -> None:
    async with serving() as (client, _):
        etag = (await client.get("/page/app.js")).headers["etag"]
        for cached in (etag, f'"other", W/{etag}', "*"):
            again = await client.get("/page/app.js", headers={"If-None-Match": cached})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert (await client.get("/page/app.js", headers={"If-None-Match": '"other"'})).status_code == 200
        head = await client.head("/page/app.js")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)


@pytest.mark.parametrize("name", ["none.js", "__init__.py", "..%2Fsettings.py", "%2Fetc%2Fpasswd", ""])
async def test_unknown_names_are_404(name: str) -> None:
    async with serving() as (client, _):
        assert (await client.get(f"/page/{name}")).status_code == 404


async def test_the_files_of_the_docs_are_served() -> None:
    async with serving() as (client, _):
        page = await client.get("/docs")
        for path in re.findall(r'(?:href|src)="([^"]+)"', page.text):
            assert (await client.get(f"/{path}")).status_code == 200, path
        assert (await client.get("/docs/none.js")).status_code == 404
    assert "script-src" not in page.headers["content-security-policy"]  # default-src 'self' holds for scripts


def test_no_inline_code_and_no_other_host() -> None:
    for page in WEB.glob("*.html"):
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page.read_text())
    for file in WEB.glob("*.*"):
        if file.suffix in {".html", ".js", ".css"}:
            assert not re.findall(r"""(?:src|href|url|fetch|import)\W{1,3}(?:https?:)?//""", file.read_text()), (
                file.name
            )
