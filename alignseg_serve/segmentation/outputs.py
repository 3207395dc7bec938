"""The files that `alignseg segment` writes for one image, from the result of a server or of this process."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import orjson

from service.rendering.polygons import trace
from service.rendering.rle import encode_rle
from service.rendering.selection import UNSELECTED

if TYPE_CHECKING:
    from alignseg_serve.client import schemas  # needs httpx
    from alignseg_serve.segmentation import result as results

MaskFormat = Literal["png", "rle", "polygons"]
Segmentation: TypeAlias = "results.Segmentation | schemas.Segmentation"


@dataclass(frozen=True, slots=True)
class Options:
    """What to write, as the query parameters of POST /segment.

    masks: "png" writes an indexed PNG; "rle" and "polygons" write the server's JSON instead.
    overlay, confidence: write these images too. tile, classes: of Segmenter.segment.
    """

    masks: MaskFormat = "png"
    overlay: bool = False
    confidence: bool = False
    tile: str = "auto"
    classes: tuple[str, ...] = ()

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of the files to write, the mask's first."""
        images = {".overlay.png": self.overlay, ".confidence.png": self.confidence}
        return (".png" if self.masks == "png" else ".json", *(suffix for suffix, wanted in images.items() if wanted))

    @property
    def key(self) -> str:
        """Of the options that change the contents of a file; empty for the defaults."""
        changed = {"tile": self.tile} if self.tile != "auto" else {}
        changed |= {"classes": ",".join(self.classes)} if self.classes else {}
        if self.masks != "png":
            changed |= {"masks": self.masks, "confidence": str(self.confidence)}
        return json.dumps(changed, sort_keys=True) if changed else ""


def render(result: Segmentation, options: Options) -> dict[str, bytes]:
    """The files by their suffixes, as of `options.suffixes`."""
    files = {".png": result.mask_png} if options.masks == "png" else {".json": render_json(result, options)}
    if options.overlay and result.overlay_png is not None:
        files[".overlay.png"] = result.overlay_png
    if options.confidence and result.confidence_png is not None:
        files[".confidence.png"] = result.confidence_png
    return files


def render_json(result: Segmentation, options: Options) -> bytes:
    """The JSON of POST /segment without its base64 images and times."""
    body: dict[str, Any] = {name: getattr(result, name) for name in ("model", "version", "width", "height")}
    body["input_size"] = result.input_size
    if options.classes:
        body["unselected_id"] = UNSELECTED
    if result.tiles > 1 or options.tile in {"height", "true"}:
        body["tiles"] = result.tiles
    masks = _masks(result, options.masks)
    body["classes"] = [_entry(entry) | masks[entry.id] for entry in result.classes]
    return orjson.dumps(body)


def _masks(result: Segmentation, masks: MaskFormat) -> Mapping[int, dict[str, Any]]:
    present = [entry.id for entry in result.classes]
    if masks == "rle":
        return {i: {"rle": rle} for i, rle in encode_rle(result.mask, present).items()}
    return {i: {"polygons": polygons} for i, polygons in trace(result.mask, present).items()}


def _entry(entry: Any) -> dict[str, Any]:
    names = ("id", "name", "color", "pixels", "fraction", "box", "confidence")
    values = {name: getattr(entry, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}
