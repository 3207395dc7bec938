"""The forms an answer can take: one function a media type, from a segmentation to the bytes of a body."""

import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from service import encode
from service.contracts import UInt8Array
from service.manifest import Manifest

JSON: Final = "application/json"
PNG: Final = "image/png"
INCLUDE: Final = ("overlay", "class_masks", "class_overlays")


@dataclass(frozen=True, slots=True)
class Segmentation:
    """All that an answer is made of.

    pixels: (H, W, 3) uint8 RGB, the picture as decoded. ids: (H, W) uint8 class ids.
    timing_ms: the stages so far. encoding_since: perf_counter() at which encoding began.
    confidence: (H, W) uint8, 255 times the chosen class's probability, if asked for. tiles: how many it took.
    """

    model: Manifest
    pixels: UInt8Array
    ids: UInt8Array
    timing_ms: Mapping[str, float]
    encoding_since: float
    confidence: UInt8Array | None = None
    tiles: int = 1

    def timing_until_now(self) -> dict[str, float]:
        """Milliseconds of each stage, encoding included."""
        encode_ms = (time.perf_counter() - self.encoding_since) * 1e3
        return {stage: round(ms, 3) for stage, ms in {**self.timing_ms, "encode": encode_ms}.items()}


Renderer = Callable[[Segmentation, frozenset[str]], bytes]


def render_png(seg: Segmentation, _include: frozenset[str]) -> bytes:
    """The indexed PNG itself: each pixel's index is its class id."""
    return encode.indexed_png(seg.ids, seg.model.palette)


def render_json(seg: Segmentation, include: frozenset[str]) -> bytes:
    """Figures of each class present and the mask; `include` adds pictures. PNGs travel as base64."""
    height, width = seg.ids.shape
    classes = encode.summarize(seg.ids, seg.model)
    answer: dict[str, Any] = {
        "model": seg.model.name,
        "version": seg.model.version,
        "width": width,
        "height": height,
        "classes": classes,
        "mask": _base64(render_png(seg, include)),
    }
    if "overlay" in include:
        answer["overlay"] = _base64(encode.overlay_png(seg.pixels, seg.ids, seg.model.palette))
    if "class_masks" in include:
        answer["class_masks"] = {c.name: _base64(encode.class_mask_png(seg.ids, c.id)) for c in classes}
    if "class_overlays" in include:
        answer["class_overlays"] = {
            c.name: _base64(encode.class_overlay_png(seg.ids, c.id, seg.model.palette)) for c in classes
        }
    return orjson.dumps({**answer, "timing_ms": seg.timing_until_now()})


RENDERERS: Final[Mapping[str, Renderer]] = {JSON: render_json, PNG: render_png}  # the first is the default


def _base64(png: bytes) -> str:
    return b64encode(png).decode("ascii")
