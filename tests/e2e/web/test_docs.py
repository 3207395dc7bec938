"""Swagger UI at /docs, and both pages behind an API key."""

from collections.abc import Generator
from typing import Any

import pytest

from tests.e2e.web.helpers import segment
from tests.support.live_server import live


@pytest.fixture
def page_with_key(browser: Any) -> Generator[Any, None, None]:
    """A tab on a server that needs a key; the browser sends it as a password."""
    with live(api_keys="secret") as url:
        context = browser.new_context(base_url=url, http_credentials={"username": "me", "password": "secret"})
        page = context.new_page()
        page.set_default_timeout(60_000)
        yield page
        context.close()


def test_the_browser_asks_for_the_key(page_with_key: Any) -> None:
    page_with_key.goto("/")
    segment(page_with_key)
    assert page_with_key.locator("#legend li").count() == 4


def test_the_docs_load_no_other_host(page: Any, server: str) -> None:
    page.goto(f"{server}/docs")
    page.get_by_text("/segment").first.wait_for()


@pytest.mark.parametrize(("color_scheme", "dark"), [("light", False), ("dark", True)])
def test_the_docs_follow_the_color_scheme(browser: Any, server: str, color_scheme: str, dark: bool) -> None:
    context = browser.new_context(color_scheme=color_scheme)
    page = context.new_page()
    page.goto(f"{server}/docs")
    page.get_by_text("/segment").first.wait_for()
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    title = page.locator(".info .title").evaluate("element => getComputedStyle(element).color")
    assert (brightness(title) > 128) == dark
    assert (brightness(background) < 128) == dark or background == "rgba(0, 0, 0, 0)"
    context.close()


def brightness(color: str) -> float:
    """The mean of the channels of "rgb(R, G, B)"."""
    channels = [float(part) for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    return sum(channels) / 3


def test_the_docs_send_a_key(page_with_key: Any) -> None:
    page = page_with_key
    page.goto("/docs")
    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_label("Value:").or_(page.get_by_label("auth-bearer-value")).first.fill("secret")
    page.get_by_role("button", name="Apply credentials").first.click()
    page.get_by_role("button", name="Close").last.click()
    page.get_by_text("/classes").first.click()
    page.get_by_role("button", name="Try it out").click()
    with page.expect_request("**/classes") as request:
        page.get_by_role("button", name="Execute").click()
    assert request.value.all_headers()["authorization"] == "Bearer secret"
    assert request.value.response().status == 200
