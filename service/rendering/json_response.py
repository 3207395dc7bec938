"""The JSON response: statistics and masks of each class."""

from base64 import b64encode
from typing import Any

import orjson

from service.rendering import images
from service.rendering.class_stats import ClassSummary, summarize
from service.rendering.options import RenderOptions
from service.rendering.polygons import trace
from service.rendering.rle import encode_rle
from service.rendering.segmentation import Segmentation
from service.rendering.selection import UNSELECTED, select


def render_json(seg: Segmentation, options: RenderOptions) -> bytes:
    """Everything that was requested in one object. PNGs are in base64."""
    response, selected, classes = describe(seg, options)
    if options.masks == "png":
        response["mask"] = _base64(mask_png(selected, options))
    if seg.confidence is not None:
        response["confidence"] = _base64(images.confidence_png(seg.confidence))
    response |= _images(selected, options, classes)
    return to_json(response, seg)


def describe(seg: Segmentation, options: RenderOptions) -> tuple[dict[str, Any], Segmentation, list[ClassSummary]]:
    """The response without its images, the segmentation with only the requested classes, and their statistics.

    RLE and polygons are part of the first.
    """
    height, width = seg.ids.shape
    response: dict[str, Any] = {"model": seg.model.name, "version": seg.model.version, "width": width, "height": height}
    response["input_size"] = seg.input_size[::-1]
    selected = seg
    if options.classes:
        selected = seg.restricted_to(select(options.classes, seg.model, seg.model.name))
        response["unselected_id"] = UNSELECTED
    if seg.tiles > 1 or options.tile in {"height", "true"}:
        response["tiles"] = seg.tiles
    classes = summarize(selected.ids, selected.classes, seg.confidence, with_unselected=bool(options.classes))
    response["classes"] = _entries(selected, options, classes)
    return response, selected, classes


def mask_png(selected: Segmentation, options: RenderOptions) -> bytes:
    """The indexed PNG of a segmentation that was restricted to options.classes."""
    classes = selected.classes
    return images.indexed_png(selected.ids, classes.palette, names=classes.names, with_unselected=bool(options.classes))


def to_json(response: dict[str, Any], seg: Segmentation) -> bytes:
    """Serialize, with the time each stage took."""
    return orjson.dumps({**response, "timing_ms": seg.timing_until_now()})


def _entries(selected: Segmentation, options: RenderOptions, classes: list[ClassSummary]) -> list[dict[str, Any]]:
    present = [c.id for c in classes]
    masks: dict[int, Any] = {}
    if options.masks == "rle":
        masks = {i: {"rle": rle} for i, rle in encode_rle(selected.ids, present).items()}
    elif options.masks == "polygons":
        masks = {i: {"polygons": geometry} for i, geometry in trace(selected.ids, present).items()}
    return [_entry(c) | masks.get(c.id, {}) for c in classes]


def _entry(c: ClassSummary) -> dict[str, Any]:
    entry = {"id": c.id, "name": c.name, "color": c.color, "pixels": c.pixels, "fraction": c.fraction, "box": c.box}
    return entry if c.confidence is None else {**entry, "confidence": c.confidence}


def _images(selected: Segmentation, options: RenderOptions, classes: list[ClassSummary]) -> dict[str, Any]:
    ids, palette = selected.ids, selected.model.palette
    encoded: dict[str, Any] = {}
    if "overlay" in options.include:
        encoded["overlay"] = _base64(images.overlay_png(selected.image, ids, palette, options.alpha))
    if "class_masks" in options.include:
        encoded["class_masks"] = {c.name: _base64(images.class_mask_png(ids, c.id)) for c in classes}
    if "class_overlays" in options.include:
        encoded["class_overlays"] = {
            c.name: _base64(images.class_overlay_png(ids, c.id, palette, options.alpha)) for c in classes
        }
    return encoded


def _base64(png: bytes) -> str:
    return b64encode(png).decode("ascii")
