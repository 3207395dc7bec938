"""The result of `alignseg_serve.segment`, with the attributes of the client's Segmentation."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from alignseg_serve.result_repr import result_repr
from service.model_folder.manifest import Manifest
from service.rendering import images
from service.rendering.class_stats import ClassSummary
from service.types import UInt8Array


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """A segmented image. All arrays have the image's own size, after EXIF orientation.

    mask: (H, W) uint8 class ids; 255 where the pixel's class was not requested.
    classes: those that are present, by id, each with id, name, color (RGB), pixels, fraction (0..1), box
        (x, y, width, height) and confidence (mean probability, 0..1; None unless requested).
    confidence: (H, W) uint8, 255 times the probability of the pixel's class; None unless requested.
    timing_ms: milliseconds in decode and infer. manifest: of the model.
    input_size: (width, height) of the image as the model saw it, in `tiles` tiles.
    read_pixels: gives the image, (H, W, 3) uint8 RGB; called when an overlay is drawn.
    """

    mask: UInt8Array
    classes: tuple[ClassSummary, ...]
    confidence: UInt8Array | None
    timing_ms: Mapping[str, float]
    manifest: Manifest
    read_pixels: Callable[[], UInt8Array]
    input_size: tuple[int, int]
    tiles: int

    def __repr__(self) -> str:
        return result_repr(self)

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """Version of the model."""
        return self.manifest.version

    @property
    def height(self) -> int:
        """Height of the image in pixels."""
        return int(self.mask.shape[0])

    @property
    def width(self) -> int:
        """Width of the image in pixels."""
        return int(self.mask.shape[1])

    @cached_property
    def mask_png(self) -> bytes:
        """Indexed PNG: each pixel's index is its class id, the palette has the class colours."""
        names, palette = self.manifest.names, self.manifest.palette
        return images.indexed_png(self.mask, palette, names=names, with_unselected=True)

    @cached_property
    def overlay_png(self) -> bytes:
        """RGB PNG: the class colours blended over the image."""
        return images.overlay_png(self.read_pixels(), self.mask, self.manifest.palette)

    @cached_property
    def confidence_png(self) -> bytes | None:
        """8-bit grey PNG of `confidence`."""
        return None if self.confidence is None else images.confidence_png(self.confidence)

    def save_mask(self, path: str | os.PathLike[str]) -> None:
        """Write the indexed PNG. Raises OSError."""
        Path(path).write_bytes(self.mask_png)

    def save_overlay(self, path: str | os.PathLike[str]) -> None:
        """Write the overlay as a PNG. Raises OSError."""
        Path(path).write_bytes(self.overlay_png)
