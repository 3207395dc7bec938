"""The page in a real Chromium: pictures by every road, the legend, the pointer, the keyboard, errors told kindly."""

import io
import shutil
import struct
import zlib
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.errors import EngineError
from service.model_folder.manifest import ClassEntry
from tests.support.fake_engine import FakeEngine, encoded, manifest, striped
from tests.support.live_server import live

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDTH, HEIGHT = 96, 64
PICTURE = encoded(striped(HEIGHT, WIDTH))


class Fault:
    """A `before` that fails while it is told to."""

    on = False

    def __call__(self, batch: object) -> None:
        if self.on:
            raise EngineError("the engine has a bad day.")


FAULT = Fault()


@pytest.fixture(scope="module")
def server() -> Generator[str, None, None]:
    """Two of the classes share a colour: only ids tell them apart."""
    model = manifest()
    classes = [*model.classes[:3], ClassEntry(name="parked_car", color=model.classes[2].color)]
    with live(FakeEngine(before=FAULT), model.model_copy(update={"classes": tuple(classes)})) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Generator[object, None, None]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tab(browser, server: str):  # type: ignore[no-untyped-def]
    """A tab, and what went wrong in it: the page must ask nobody else, break no policy and throw nothing."""
    tab = browser.new_page(viewport={"width": 1100, "height": 800})
    tab.set_default_timeout(10_000)
    troubles: list[str] = []
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("console", lambda m: troubles.append(m.text) if "Content Security" in m.text else None)
    tab.on("request", lambda r: troubles.append(r.url) if not r.url.startswith((server, "blob:")) else None)
    return tab, troubles


@pytest.fixture
def page(tab, server: str):  # type: ignore[no-untyped-def]
    """The page, freshly opened."""
    page, troubles = tab
    page.goto(server)
    yield page
    page.unroute_all()
    FAULT.on = False
    assert troubles == []


def pick(page, data: bytes = PICTURE, name: str = "street.png") -> None:  # type: ignore[no-untyped-def]
    page.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": data})


def shown(page) -> None:  # type: ignore[no-untyped-def]
    page.locator("#result:not([aria-busy])").wait_for()


def overlay(page) -> np.ndarray:  # type: ignore[no-untyped-def, type-arg]
    """(H, W, 4) of the canvas."""
    pixels = page.evaluate("""() => {
        const canvas = document.querySelector("#stage canvas");
        return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
    }""")
    return np.array(pixels, dtype=np.uint8).reshape(HEIGHT, WIDTH, 4)


def test_upload_and_legend(page) -> None:  # type: ignore[no-untyped-def]
    pick(page)
    shown(page)
    rows = page.locator("#legend li").all_inner_texts()
    assert sorted(row.split("\n")[0] for row in rows) == ["parked car", "road", "sky", "tree"]
    assert "25.0 %" in rows[0]
    assert "fake 1 · 4 classes" in page.locator("#model").inner_text()
    assert overlay(page)[30, 12].tolist() == [128, 64, 128, 255]
    stages = page.locator("#timing dt").all_inner_texts()
    assert stages == ["network", "decode", "queue", "infer", "encode"]
    assert page.locator("#status").inner_text().startswith("Done.")


def test_toggle_and_solo(page) -> None:  # type: ignore[no-untyped-def]
    pick(page)
    shown(page)
    columns = [12, 36, 60, 84]
    page.get_by_role("checkbox", name="tree").uncheck()
    assert overlay(page)[30, columns, 3].tolist() == [255, 255, 0, 255]  # its twin in colour stays
    page.get_by_role("button", name="Only parked car").click()
    assert overlay(page)[30, columns, 3].tolist() == [0, 0, 0, 255]
    page.get_by_role("button", name="Only parked car").click()
    assert overlay(page)[30, columns, 3].tolist() == [255] * 4
    page.get_by_role("button", name="None").click()
    assert overlay(page)[..., 3].max() == 0
    page.get_by_role("button", name="All").click()
    assert overlay(page)[..., 3].min() == 255


def test_the_pointer_and_the_keyboard_tell_the_class(page) -> None:  # type: ignore[no-untyped-def]
    pick(page)
    shown(page)
    box = page.locator("#stage").bounding_box()
    tip = page.locator(".tip .name")
    for share, name in ((0.125, "road"), (0.375, "sky"), (0.625, "tree"), (0.875, "parked car")):
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
        assert tip.inner_text() == name
        assert page.locator("#legend li.pointed .name").inner_text() == name
    page.mouse.move(0, 0)
    assert tip.is_hidden()
    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() == "tree"
    assert page.locator("#status").inner_text() == "tree"
    for _ in range(4):
        page.keyboard.press("Shift+ArrowLeft")
    assert tip.inner_text() == "sky"
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_opacity_and_downloads(page) -> None:  # type: ignore[no-untyped-def]
    pick(page)
    shown(page)
    page.get_by_label("Overlay").fill("100")
    assert page.locator("#stage canvas").evaluate("canvas => canvas.style.opacity") == "1"
    with page.expect_download() as mask:
        page.get_by_role("button", name="Save mask").click()
    with page.expect_download() as drawn:
        page.get_by_role("button", name="Save overlay").click()
    assert (mask.value.suggested_filename, drawn.value.suggested_filename) == ("street-mask.png", "street-overlay.png")
    ids = np.asarray(Image.open(mask.value.path()))
    assert ids[30, [12, 36, 60, 84]].tolist() == [0, 1, 2, 3]
    seen = Image.open(io.BytesIO(Path(drawn.value.path()).read_bytes())).convert("RGB")
    assert seen.size == (WIDTH, HEIGHT)
    assert seen.getpixel((12, 30)) == (128, 64, 128)


def test_an_error_is_told_kindly_and_can_be_left(page) -> None:  # type: ignore[no-untyped-def]
    pick(page, b"hello", "notes.txt")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "Unsupported image format" in alert.inner_text()
    assert "expected a JPEG" in alert.inner_text()
    assert page.get_by_role("button", name="Try again").is_hidden()  # the same picture would not get better
    pick(page)
    shown(page)
    assert alert.is_hidden()


def test_a_fault_of_the_server_can_be_tried_again(page) -> None:  # type: ignore[no-untyped-def]
    FAULT.on = True
    pick(page)
    page.get_by_role("alert").wait_for()
    assert "bad day" in page.get_by_role("alert").inner_text()
    FAULT.on = False
    page.get_by_role("button", name="Try again").click()
    shown(page)


def test_a_server_that_is_gone(page) -> None:  # type: ignore[no-untyped-def]
    page.route("**/segment", lambda route: route.abort())
    pick(page)
    page.get_by_role("alert").wait_for()
    assert "can’t be reached" in page.get_by_role("alert").inner_text()


def test_a_full_server_is_waited_for(page) -> None:  # type: ignore[no-untyped-def]
    problem = {"title": "The server is at capacity", "detail": "full", "retry_after_s": 0.5}
    page.route("**/segment", lambda route: route.fulfill(status=429, json=problem))
    pick(page)
    again = page.get_by_role("button", name="Try again")
    again.wait_for()
    assert (again.inner_text(), again.is_disabled()) == ("Try again in 1 s", True)
    page.unroute("**/segment")
    again.click()  # waits until it is enabled
    shown(page)


def test_the_demo_by_keyboard_alone(page) -> None:  # type: ignore[no-untyped-def]
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText").strip() == "Try the demo scene":
            break
    page.keyboard.press("Enter")
    shown(page)
    assert page.evaluate("document.activeElement.id") == "stage"  # the button is gone; the focus is not lost
    assert page.locator("#stage img").evaluate("image => image.naturalWidth") == 480


@pytest.mark.parametrize("road", ["drop", "paste"])
def test_drop_and_paste(page, road: str) -> None:  # type: ignore[no-untyped-def]
    page.evaluate(
        """([bytes, road]) => {
            const carried = new DataTransfer();
            carried.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
            const event = road === "drop"
                ? new DragEvent("drop", {dataTransfer: carried, bubbles: true, cancelable: true})
                : new ClipboardEvent("paste", {clipboardData: carried, bubbles: true});
            document.body.dispatchEvent(event);
        }""",
        [list(PICTURE), road],
    )
    shown(page)
    assert page.locator("#legend li").count() == 4


def test_a_format_that_browsers_do_not_show(page) -> None:  # type: ignore[no-untyped-def]
    pick(page, encoded(striped(HEIGHT, WIDTH), "TIFF"), "street.tif")
    shown(page)
    assert page.locator("#stage img").is_hidden()
    assert overlay(page)[30, 36].tolist() == [128, 128, 128, 255]
    assert page.get_by_label("Overlay").input_value() == "100"
    pick(page)
    shown(page)
    assert page.get_by_label("Overlay").input_value() == "55"


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, server: str) -> None:  # type: ignore[no-untyped-def]
    context = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(server)
    assert not page.locator("#welcome p.by-pointer").is_visible()  # nobody drops a picture by finger
    pick(page)
    shown(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#stage-help").inner_text() == "Tap the picture to see a pixel’s class."
    box = page.locator("#stage").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2)
    assert page.locator(".tip .name").inner_text() == "sky"
    context.close()


@pytest.mark.parametrize("classes", [2, 4, 16, 200])
def test_ids_of_any_depth_and_by_every_filter(page, classes: int) -> None:  # type: ignore[no-untyped-def]
    ids = np.random.default_rng(classes).integers(0, classes, (37, 53), dtype=np.uint8)
    ids[:, 20:40] = classes - 1
    depth = {2: 1, 4: 2, 16: 4, 200: 8}[classes]
    found = page.evaluate(
        """async (bytes) => {
            const { idsOf } = await import("/page/mask_png.js");
            const { width, height, ids } = await idsOf(new Uint8Array(bytes));
            return { width, height, ids: [...ids] };
        }""",
        list(png_with_every_filter(ids, depth)),
    )
    assert (found["width"], found["height"]) == (53, 37)
    np.testing.assert_array_equal(np.array(found["ids"], np.uint8).reshape(37, 53), ids)


def png_with_every_filter(ids: np.ndarray, depth: int) -> bytes:  # type: ignore[type-arg]
    """An indexed PNG whose rows take turns with the five filters, checked by Pillow."""
    bits = np.unpackbits(ids[..., None], axis=2)[..., 8 - depth :].reshape(len(ids), -1)
    rows = np.packbits(bits, axis=1).astype(np.int64)
    up = np.pad(rows, ((1, 0), (0, 0)))[:-1]
    left, corner = (np.pad(values, ((0, 0), (1, 0)))[:, :-1] for values in (rows, up))
    distances = np.abs(np.stack([up - corner, left - corner, left + up - 2 * corner]))
    paeth = np.choose(distances.argmin(axis=0), [left, up, corner])
    guesses = [np.zeros_like(rows), left, up, (left + up) // 2, paeth]
    raw = b"".join(bytes([y % 5]) + (row - guesses[y % 5][y]).astype(np.uint8).tobytes() for y, row in enumerate(rows))
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], depth, 3, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", bytes(3 * 2**depth)), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), ids)
    return png


def test_behind_a_key_the_browser_asks_for_it(browser) -> None:  # type: ignore[no-untyped-def]
    with live(api_keys="secret") as url:
        context = browser.new_context(http_credentials={"username": "me", "password": "secret"})
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.goto(url)
        pick(page)
        shown(page)
        assert page.locator("#legend li").count() == 4
        context.close()


def test_the_docs_need_no_other_host(page, server: str) -> None:  # type: ignore[no-untyped-def]
    page.goto(f"{server}/docs")
    page.get_by_text("/segment").first.wait_for()


def test_the_docs_take_a_key(browser) -> None:  # type: ignore[no-untyped-def]
    with live(api_keys="secret") as url:
        context = browser.new_context(http_credentials={"username": "me", "password": "secret"})
        try:
            page = context.new_page()
            page.goto(f"{url}/docs")
            page.get_by_role("button", name="Authorize").first.click()
            page.get_by_label("Value:").or_(page.get_by_label("auth-bearer-value")).first.fill("secret")
            page.get_by_role("button", name="Apply credentials").first.click()
            page.get_by_role("button", name="Close").last.click()
            page.get_by_text("/classes").first.click()
            page.get_by_role("button", name="Try it out").click()
            with page.expect_request("**/classes") as asked:
                page.get_by_role("button", name="Execute").click()
            assert asked.value.all_headers()["authorization"] == "Bearer secret"
            assert asked.value.response().status == 200
        finally:
            context.close()
