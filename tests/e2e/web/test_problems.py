"""Failed requests: what the page says, and that the result before them stays."""

from typing import Any

from tests.e2e.web.helpers import COLUMNS, FAULT, choose, overlay, point_at, segment, wait_for_result


def test_a_bad_file_shows_the_servers_explanation(page: Any, server: str) -> None:
    problem = page.request.post(f"{server}/segment", data=b"hello").json()
    choose(page, b"hello", "notes.txt")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert problem["title"] in alert.inner_text()
    assert problem["detail"].lower() in alert.inner_text().lower()
    assert alert.get_by_role("button", name="Try again").is_hidden()  # the same file would fail again
    assert page.locator("#welcome").is_visible()
    segment(page)
    assert alert.is_hidden()


def test_after_a_bad_file_the_current_result_stays(page: Any) -> None:
    segment(page)
    page.get_by_role("checkbox", name="sky").uncheck()
    before = overlay(page)
    choose(page, b"hello", "notes.txt")
    alert = page.get_by_role("alert")
    alert.wait_for()
    wait_for_result(page)
    assert (overlay(page) == before).all()
    assert page.locator("#viewer img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 96
    assert point_at(page, 0.625) == "tree"
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").click()
    assert download.value.suggested_filename == "street.json"
    alert.get_by_role("button", name="Keep the current result").click()
    assert alert.is_hidden()
    assert page.locator("#result").is_visible()


def test_a_switch_that_the_server_rejects_is_reset(page: Any) -> None:
    segment(page)
    problem = {"title": "Bad request", "detail": "Model fake 1 has no confidence output."}
    page.route("**/segment?*", lambda route: route.fulfill(status=400, json=problem))
    page.get_by_label("Confidence", exact=True).click()
    page.get_by_role("alert").wait_for()
    assert not page.get_by_label("Confidence", exact=True).is_checked()
    assert overlay(page)[30, COLUMNS, 3].tolist() == [255] * 4


def test_a_server_error_can_be_retried(page: Any) -> None:
    FAULT.on = True
    choose(page)
    page.get_by_role("alert").wait_for()
    assert "failed on purpose" in page.get_by_role("alert").inner_text()
    FAULT.on = False
    page.get_by_role("button", name="Try again").click()
    wait_for_result(page)


def test_an_unreachable_server_is_reported(page: Any) -> None:
    page.route("**/segment", lambda route: route.abort())
    choose(page)
    page.get_by_role("alert").wait_for()
    assert "could not be reached" in page.get_by_role("alert").inner_text()


def test_an_overloaded_server_is_retried_after_the_time_it_names(page: Any) -> None:
    problem = {"title": "The server is at capacity", "detail": "full", "retry_after_s": 0.5}
    page.route("**/segment", lambda route: route.fulfill(status=429, json=problem))
    choose(page)
    retry = page.get_by_role("button", name="Try again")
    retry.wait_for()
    assert (retry.inner_text(), retry.is_disabled()) == ("Try again in 1 s", True)
    page.unroute("**/segment")
    retry.click()  # waits until it is enabled
    wait_for_result(page)


def test_a_failed_demo_image_can_be_retried(page: Any) -> None:
    page.route("**/page/scene.jpg", lambda route: route.abort())
    page.get_by_role("button", name="Try the demo image").click()
    page.get_by_role("alert").wait_for()
    page.unroute("**/page/scene.jpg")
    page.get_by_role("button", name="Try again").click()
    wait_for_result(page)
