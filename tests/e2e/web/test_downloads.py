"""The download buttons: each file as other tools read it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from shapely.geometry import shape

from tests.e2e.web.helpers import COLUMNS, HEIGHT, WIDTH, segment, wait_for_result


def download(page: Any, button: str) -> tuple[str, bytes]:
    """The name and content of the file behind a button."""
    with page.expect_download() as event:
        page.get_by_role("group", name="Download").get_by_role("button", name=button).click()
    return event.value.suggested_filename, Path(event.value.path()).read_bytes()


def test_mask_and_overlay(page: Any) -> None:
    segment(page)
    page.get_by_label("Overlay").first.fill("100")
    assert page.locator("#viewer canvas").evaluate("canvas => canvas.style.opacity") == "1"
    name, mask = download(page, "Mask")
    assert name == "street-mask.png"
    assert np.asarray(Image.open(io.BytesIO(mask)))[30, COLUMNS].tolist() == [0, 1, 2, 3]
    name, png = download(page, "Overlay")
    assert name == "street-overlay.png"
    overlay = Image.open(io.BytesIO(png)).convert("RGB")
    assert overlay.size == (WIDTH, HEIGHT)
    assert overlay.getpixel((12, 30)) == (128, 64, 128)


def test_json_is_the_servers_response(page: Any) -> None:
    with page.expect_response("**/segment") as response:
        segment(page)
    name, data = download(page, "JSON")
    assert name == "street.json"
    assert json.loads(data) == response.value.json()


def test_polygons_cover_the_classes(page: Any) -> None:
    segment(page)
    name, data = download(page, "Polygons")
    assert name == "street-polygons.json"
    classes = json.loads(data)["classes"]
    assert [shape(entry["polygons"]).area for entry in classes] == [entry["pixels"] for entry in classes]
    assert len(classes) == 4


def test_confidence_is_offered_when_there_is_one(page: Any) -> None:
    segment(page)
    button = page.get_by_role("group", name="Download").get_by_role("button", name="Confidence")
    assert button.is_hidden()
    page.get_by_label("Confidence", exact=True).check()
    wait_for_result(page)
    name, png = download(page, "Confidence")
    assert name == "street-confidence.png"
    assert np.asarray(Image.open(io.BytesIO(png))).tolist() == [[200] * WIDTH] * HEIGHT


def test_polygons_that_fail_are_reported(page: Any) -> None:
    segment(page)
    page.route("**/segment?*", lambda route: route.abort())
    page.get_by_role("button", name="Polygons").click()
    page.get_by_role("alert").wait_for()
    assert "could not be reached" in page.get_by_role("alert").inner_text()
    page.unroute("**/segment?*")
    with page.expect_download() as event:
        page.get_by_role("alert").get_by_role("button", name="Try again").click()
    assert event.value.suggested_filename == "street-polygons.json"
