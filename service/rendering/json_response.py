"""The answer in JSON: figures and masks of each class."""

from base64 import b64encode
from typing import Any

import orjson

from service.rendering import images
from service.rendering.class_stats import ClassSummary, summarize
from service.rendering.options import RenderOptions
from service.rendering.polygons import trace
from service.rendering.rle import encode_rle
from service.rendering.segmentation import UNSELECTED, Segmentation, find_classes


def render_json(seg: Segmentation, wishes: RenderOptions) -> bytes:
    """Everything asked for in one object. PNGs travel as base64."""
    answer, shown, classes = describe(seg, wishes)
    if wishes.masks == "png":
        answer["mask"] = _base64(mask_png(shown, wishes))
    if seg.confidence is not None:
        answer["confidence"] = _base64(images.confidence_png(seg.confidence))
    answer |= _pictures(shown, wishes, classes)
    return dumped(answer, seg)


def describe(seg: Segmentation, wishes: RenderOptions) -> tuple[dict[str, Any], Segmentation, list[ClassSummary]]:
    """What is not a picture, the segmentation with the classes asked for alone, and their figures.

    RLE and polygons are in the first, with their classes.
    """
    height, width = seg.ids.shape
    classes = summarize(seg.ids, seg.model, seg.confidence)
    answer: dict[str, Any] = {"model": seg.model.name, "version": seg.model.version, "width": width, "height": height}
    shown = seg
    if wishes.classes:
        kept = find_classes(wishes.classes, seg.model)
        shown, classes = seg.restricted_to(kept), [c for c in classes if c.id in kept]
        answer["unselected_id"] = UNSELECTED
    if wishes.tile:
        answer["tiles"] = seg.tiles
    answer["classes"] = _entries(shown, wishes, classes)
    return answer, shown, classes


def mask_png(shown: Segmentation, wishes: RenderOptions) -> bytes:
    """The indexed PNG of a segmentation, restricted as `wishes` say."""
    model = shown.model
    return images.indexed_png(shown.ids, model.palette, names=model.names, with_unselected=bool(wishes.classes))


def dumped(answer: dict[str, Any], seg: Segmentation) -> bytes:
    """The answer with the time it took, as bytes."""
    return orjson.dumps({**answer, "timing_ms": seg.timing_until_now()})


def _entries(shown: Segmentation, wishes: RenderOptions, classes: list[ClassSummary]) -> list[dict[str, Any]]:
    present = [c.id for c in classes]
    forms: dict[int, Any] = {}
    if wishes.masks == "rle":
        forms = {i: {"rle": rle} for i, rle in encode_rle(shown.ids, present).items()}
    elif wishes.masks == "polygons":
        forms = {i: {"polygons": geometry} for i, geometry in trace(shown.ids, present).items()}
    return [_entry(c) | forms.get(c.id, {}) for c in classes]


def _entry(c: ClassSummary) -> dict[str, Any]:
    entry = {"id": c.id, "name": c.name, "color": c.color, "pixels": c.pixels, "fraction": c.fraction, "box": c.box}
    return entry if c.confidence is None else {**entry, "confidence": c.confidence}


def _pictures(shown: Segmentation, wishes: RenderOptions, classes: list[ClassSummary]) -> dict[str, Any]:
    ids, palette = shown.ids, shown.model.palette
    pictures: dict[str, Any] = {}
    if "overlay" in wishes.include:
        pictures["overlay"] = _base64(images.overlay_png(shown.picture, ids, palette, wishes.alpha))
    if "class_masks" in wishes.include:
        pictures["class_masks"] = {c.name: _base64(images.class_mask_png(ids, c.id)) for c in classes}
    if "class_overlays" in wishes.include:
        pictures["class_overlays"] = {
            c.name: _base64(images.class_overlay_png(ids, c.id, palette, wishes.alpha)) for c in classes
        }
    return pictures


def _base64(png: bytes) -> str:
    return b64encode(png).decode("ascii")
