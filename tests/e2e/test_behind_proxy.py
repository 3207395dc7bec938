"""The server under a path prefix, behind a real nginx that removes the prefix and one that keeps it."""

import getpass
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from benchmarks.harness import free_port
from tests.support.fake_engine import encoded, striped
from tests.support.live_server import live
from tests.support.server_process import wait_for

CONFIGURATION = """
user {user}; pid {folder}/pid; error_log stderr; daemon off; events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location /alignseg/ {{ proxy_pass {server}{suffix}; proxy_set_header Host $http_host; }}
    }}
}}
"""
PNG = encoded(striped())


@pytest.fixture(scope="module", params=["removed", "kept"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[str, None, None]:
    """The address of the server as its clients know it, with / at the end."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    suffix = "/" if request.param == "removed" else ""  # with a path, proxy_pass replaces that of the location
    with live(root_path="/alignseg") as server:
        text = CONFIGURATION.format(user=getpass.getuser(), folder=folder, port=port, server=server, suffix=suffix)
        (folder / "nginx.conf").write_text(text)
        nginx = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])  # noqa: S603, S607
        try:
            base = f"http://127.0.0.1:{port}/alignseg/"
            wait_for(base)
            yield base
        finally:
            nginx.terminate()
            nginx.wait(120)


def test_the_link_leads_to_the_classes(url: str) -> None:
    for path in ("segment", "segment/"):
        response = httpx.post(url + path, content=PNG)
        assert response.status_code == 200
        target = response.headers["link"].partition(">")[0].removeprefix("<")
        assert httpx.get(urljoin(str(response.url), target)).json()["classes"][1]["name"] == "sky"


def test_every_path_of_the_api_description_is_below_its_server(url: str) -> None:
    document = httpx.get(f"{url}openapi.json").json()
    (server,) = document["servers"]
    base = urljoin(f"{url}openapi.json", server["url"])
    assert base == url.rstrip("/")
    for path in ("/classes", "/v2", "/health"):
        assert path in document["paths"]
        assert httpx.get(base + path).status_code == 200


def test_redirects_stay_below_the_prefix(url: str) -> None:
    for path in ("docs/", ""):
        response = httpx.get(url.rstrip("/") + "/" + path, follow_redirects=True)
        assert (response.status_code, str(response.url).startswith(url)) == (200, True)
    assert httpx.get(url.rstrip("/"), follow_redirects=True).text.startswith("<!doctype html>")


def test_the_page_segments_its_demo_image(url: str, chromium: object) -> None:
    page = chromium.new_page()  # type: ignore[attr-defined]
    page.set_default_timeout(60_000)
    page.goto(url)
    page.locator("#welcome [data-demo]").click()
    page.locator("#result .total").get_by_text("ms").wait_for()
    assert page.locator("#legend li").count() > 0


def test_try_it_out_in_the_docs_calls_the_api(url: str, chromium: object) -> None:
    page = chromium.new_page()  # type: ignore[attr-defined]
    page.set_default_timeout(60_000)
    page.goto(f"{url}docs")
    page.get_by_text("/classes", exact=True).first.click()
    page.get_by_role("button", name="Try it out").click()
    with page.expect_response(lambda response: response.url.endswith("/classes")) as answer:
        page.get_by_role("button", name="Execute").click()
    assert answer.value.url == f"{url}classes"
    assert answer.value.status == 200


@pytest.fixture(scope="module")
def chromium() -> Generator[object, None, None]:
    playwright = pytest.importorskip("playwright.sync_api")
    path: Path | str | None = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
