"""One segmented image, from which every response format is rendered."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from service.model_folder.manifest import Manifest
from service.rendering.selection import Selection
from service.types import Classes, Size, UInt8Array


@dataclass(frozen=True, slots=True)
class Segmentation:
    """One image and its maps, all at the image's own size.

    pixels: (H, W, 3) uint8 RGB, the decoded image; None where the response does not need it.
    ids: (H, W) uint8 class ids.
    timing_ms: milliseconds of each stage so far. encoding_since: perf_counter() at the start of rendering.
    confidence: (H, W) uint8, 255 times the chosen class's probability, if requested.
    input_size: (height, width) of the image as the model saw it. tiles: how many it was cut into.
    selection: of the classes in `ids`; None for all.
    """

    model: Manifest
    pixels: UInt8Array | None
    ids: UInt8Array
    timing_ms: Mapping[str, float]
    encoding_since: float
    confidence: UInt8Array | None = None
    input_size: Size = (0, 0)
    tiles: int = 1
    selection: Selection | None = None

    def timing_until_now(self) -> dict[str, float]:
        """Milliseconds of each stage, rendering included."""
        encode_ms = (time.perf_counter() - self.encoding_since) * 1e3
        return {stage: round(ms, 3) for stage, ms in {**self.timing_ms, "encode": encode_ms}.items()}

    @property
    def image(self) -> UInt8Array:
        """The pixels, which must be there."""
        if self.pixels is None:
            raise ValueError("this segmentation has no pixels, but the format needs them; see formats.needs_pixels")
        return self.pixels

    @property
    def classes(self) -> Classes:
        """Names and colours of the ids."""
        return self.model if self.selection is None else self.selection

    def restricted_to(self, selection: Selection) -> Self:
        """The same with only these classes; all other pixels are UNSELECTED."""
        return replace(self, ids=selection.apply(self.ids), selection=selection)
