"""The web page in a real Chromium: a server with a fake engine, a browser, and a page freshly opened."""

import shutil
from collections.abc import Generator
from typing import Any

import pytest

from tests.e2e.web.helpers import FAULT
from tests.support.fake_engine import FakeEngine, manifest
from tests.support.live_server import live

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="package")
def server() -> Generator[str, None, None]:
    """The address of a server, two of whose classes share a color: only ids tell them apart."""
    model = manifest()
    twin = model.classes[3].model_copy(update={"name": "parked_car", "color": model.classes[2].color})
    with live(FakeEngine(before=FAULT), model.model_copy(update={"classes": (*model.classes[:3], twin)})) as url:
        yield url


@pytest.fixture(scope="package")
def browser() -> Generator[Any, None, None]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def tab(browser: Any, server: str) -> tuple[Any, list[str]]:
    """A tab, and its violations: exceptions, blocked content, requests to other hosts."""
    tab = browser.new_page(viewport={"width": 1100, "height": 800})
    tab.set_default_timeout(60_000)
    violations: list[str] = []
    tab.on("pageerror", lambda error: violations.append(str(error)))
    tab.on("console", lambda m: violations.append(m.text) if "Content Security" in m.text else None)
    tab.on("request", lambda r: violations.append(r.url) if not r.url.startswith((server, "blob:")) else None)
    return tab, violations


@pytest.fixture
def page(tab: tuple[Any, list[str]], server: str) -> Generator[Any, None, None]:
    """The page, freshly opened. Fails the test on a violation."""
    page, violations = tab
    page.goto(server)
    yield page
    page.unroute_all()
    FAULT.on = False
    assert violations == []
