"""The result: legend, overlay, pointer and keyboard, and the switches for tiles and confidence."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.e2e.web.helpers import COLUMNS, HEIGHT, IMAGE, WIDTH, choose, overlay, point_at, segment, wait_for_result
from tests.support.fake_engine import encoded, striped


def test_an_upload_shows_classes_overlay_and_times(page: Any) -> None:
    segment(page)
    rows = page.locator("#legend li").all_inner_texts()
    assert sorted(row.split("\n")[0] for row in rows) == ["parked car", "road", "sky", "tree"]
    assert "25.0 %" in rows[0]
    assert "fake 1 · 4 classes" in page.locator("#model").inner_text()
    assert overlay(page)[30, 12].tolist() == [128, 64, 128, 255]
    stages = page.locator("#timing dt").all_inner_texts()
    assert stages == ["transfer", "decode", "queue", "infer", "encode"]
    assert page.locator("#status").inner_text().startswith("Done.")


def test_classes_are_hidden_and_shown_by_id(page: Any) -> None:
    segment(page)
    page.get_by_role("checkbox", name="tree").uncheck()
    assert overlay(page)[30, COLUMNS, 3].tolist() == [255, 255, 0, 255]  # the class of the same color stays
    page.get_by_role("button", name="Only parked car").click()
    assert overlay(page)[30, COLUMNS, 3].tolist() == [0, 0, 0, 255]
    page.get_by_role("button", name="Only parked car").click()
    assert overlay(page)[30, COLUMNS, 3].tolist() == [255] * 4
    page.get_by_role("button", name="None").click()
    assert overlay(page)[..., 3].max() == 0
    page.get_by_role("button", name="All").click()
    assert overlay(page)[..., 3].min() == 255


def test_pointer_and_keyboard_show_the_class(page: Any) -> None:
    segment(page)
    for share, name in ((0.125, "road"), (0.375, "sky"), (0.625, "tree"), (0.875, "parked car")):
        assert point_at(page, share) == name
        assert page.locator("#legend li.highlighted .name").inner_text() == name
    tooltip = page.locator(".tooltip .name")
    page.mouse.move(0, 0)
    assert tooltip.is_hidden()
    page.locator("#viewer").focus()
    page.keyboard.press("ArrowRight")
    assert tooltip.inner_text() == "tree"
    assert page.locator("#status").inner_text() == "tree"
    for _ in range(4):
        page.keyboard.press("Shift+ArrowLeft")
    assert tooltip.inner_text() == "sky"
    page.keyboard.press("Escape")
    assert tooltip.is_hidden()


def test_the_confidence_switch_shows_probabilities(page: Any) -> None:
    segment(page)
    assert point_at(page, 0.125) == "road"
    page.get_by_label("Confidence", exact=True).check()
    wait_for_result(page)
    page.mouse.move(0, 0)
    assert point_at(page, 0.125) == "road 78.4 %"  # the fake engine's confidence is green / 255 = 200 / 255
    assert page.locator("#legend li small").all_inner_texts() == ["confidence 78 %"] * 4
    page.get_by_label("Confidence", exact=True).uncheck()
    wait_for_result(page)
    assert page.locator("#legend li small").count() == 0


def test_the_tile_switch_segments_the_image_in_tiles(page: Any) -> None:
    segment(page)
    assert "tile" not in page.locator("#timing .total").inner_text()
    with page.expect_response("**/segment?*") as response:
        page.get_by_label("Tiles", exact=True).check()
    wait_for_result(page)
    assert parse_qs(urlsplit(response.value.url).query) == {"tile": ["true"]}
    tiles = json.loads(response.value.body())["tiles"]
    assert tiles > 1
    assert page.locator("#timing .total").inner_text().endswith(f"{tiles} tiles")
    assert overlay(page)[30, COLUMNS, 3].tolist() == [255] * 4


def test_the_demo_image_works_by_keyboard_alone(page: Any) -> None:
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText").strip() == "Try the demo image":
            break
    page.keyboard.press("Enter")
    wait_for_result(page)
    assert page.evaluate("document.activeElement.id") == "viewer"  # the button is hidden; the focus is not lost
    assert page.locator("#viewer img").evaluate("image => image.naturalWidth") == 480


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_drop_and_paste(page: Any, kind: str) -> None:
    page.evaluate(
        """([bytes, kind]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
            const event = kind === "drop"
                ? new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true})
                : new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true});
            document.body.dispatchEvent(event);
        }""",
        [list(IMAGE), kind],
    )
    wait_for_result(page)
    assert page.locator("#legend li").count() == 4


def test_a_format_that_the_browser_cannot_display_is_explained(page: Any) -> None:
    segment(page, encoded(striped(HEIGHT, WIDTH), "TIFF"), "street.tif")
    assert page.locator("#viewer img").is_hidden()
    assert "cannot display street.tif" in page.locator("#unsupported").inner_text()
    assert overlay(page)[30, 36].tolist() == [128, 128, 128, 255]
    assert page.get_by_label("Overlay").first.input_value() == "100"
    segment(page)
    assert page.locator("#unsupported").is_hidden()
    assert page.get_by_label("Overlay").first.input_value() == "55"


def test_a_newer_image_replaces_a_request_under_way(page: Any) -> None:
    page.route("**/segment", lambda route: None)  # the first request stays open
    choose(page, encoded(striped(HEIGHT, WIDTH)[:, ::-1]), "first.png")
    page.wait_for_function("document.querySelector('#status').textContent.includes('first.png')")
    page.unroute("**/segment")
    segment(page)
    assert overlay(page)[30, 12].tolist() == [128, 64, 128, 255]  # road on the left: the second image
    assert page.get_by_role("alert").is_hidden()


def test_on_a_phone_nothing_is_cut_or_wider_than_the_screen(browser: Any, server: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(server)
    assert not page.locator("#welcome p.mouse-only").is_visible()  # drag and drop needs a mouse
    segment(page)
    page.evaluate("document.querySelector('#model').textContent = 'alignseg-resnet101 2026.11.25 · 19 classes'")
    for element in ("html", "#model", "h1"):
        assert page.locator(element).evaluate("element => element.scrollWidth <= element.clientWidth"), element
    assert page.locator("#viewer-help").inner_text() == "Tap the image to see a pixel’s class."
    box = page.locator("#viewer").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2)
    assert page.locator(".tooltip .name").inner_text() == "sky"
    context.close()
