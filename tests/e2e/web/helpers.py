"""What the browser tests do to the page, and read from it."""

from typing import Any

import numpy as np

from service.errors import EngineError
from service.types import UInt8Array
from tests.support.fake_engine import encoded, striped

WIDTH, HEIGHT = 96, 64
COLUMNS = [12, 36, 60, 84]  # one in the stripe of each class: road, sky, tree, parked car
IMAGE = encoded(striped(HEIGHT, WIDTH))


class Fault:
    """Makes the fake engine fail while `on`."""

    on = False

    def __call__(self, batch: UInt8Array) -> None:
        if self.on:
            raise EngineError("the engine failed on purpose.")


FAULT = Fault()


def choose(page: Any, data: bytes = IMAGE, name: str = "street.png") -> None:
    page.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": data})


def wait_for_result(page: Any) -> None:
    page.locator("#result:not([aria-busy])").wait_for()


def segment(page: Any, data: bytes = IMAGE, name: str = "street.png") -> None:
    choose(page, data, name)
    wait_for_result(page)


def overlay(page: Any) -> UInt8Array:
    """(H, W, 4) of the canvas."""
    pixels = page.evaluate("""() => {
        const canvas = document.querySelector("#viewer canvas");
        return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
    }""")
    return np.array(pixels, dtype=np.uint8).reshape(HEIGHT, WIDTH, 4)


def point_at(page: Any, x_share: float) -> str:
    """The tooltip's text with the mouse at a share of the image's width, in the middle of its height."""
    box = page.locator("#viewer").bounding_box()
    page.mouse.move(box["x"] + box["width"] * x_share, box["y"] + box["height"] / 2)
    text: str = page.locator(".tooltip .name").inner_text()
    return text
