"""One segmented image, from which every response format is rendered."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from service.errors import BadRequest
from service.model_folder.manifest import Manifest
from service.types import Size, UInt8Array

UNSELECTED: Final = 255  # id of pixels whose class was not requested; models have at most 255 classes, 0 to 254


@dataclass(frozen=True, slots=True)
class Segmentation:
    """One image and its maps, all at the image's own size.

    pixels: (H, W, 3) uint8 RGB, the decoded image; None where the response does not need it.
    ids: (H, W) uint8 class ids.
    timing_ms: milliseconds of each stage so far. encoding_since: perf_counter() at the start of rendering.
    confidence: (H, W) uint8, 255 times the chosen class's probability, if requested.
    input_size: (height, width) of the image as the model saw it. tiles: how many it was cut into.
    """

    model: Manifest
    pixels: UInt8Array | None
    ids: UInt8Array
    timing_ms: Mapping[str, float]
    encoding_since: float
    confidence: UInt8Array | None = None
    input_size: Size = (0, 0)
    tiles: int = 1

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

    def restricted_to(self, class_ids: Sequence[int]) -> Self:
        """The same with all other pixels UNSELECTED."""
        table = bytes(i if i in class_ids else UNSELECTED for i in range(256))
        # Three times as fast as indexing in NumPy, which first converts every index to eight bytes.
        ids = np.frombuffer(self.ids.tobytes().translate(table), dtype=np.uint8)
        return replace(self, ids=ids.reshape(self.ids.shape))


def find_classes(requested: Sequence[str], model: Manifest) -> list[int]:
    """Ids of classes given by name, in any case, or by id; sorted.

    Raises BadRequest, which lists the model's classes.
    """
    if not requested:
        return []
    by_name = {str(i): i for i in range(len(model.names))}
    by_name |= {name.casefold(): i for i, name in enumerate(model.names)}
    by_name |= {name: i for i, name in enumerate(model.names)}
    ids = [by_name.get(name, by_name.get(name.casefold())) for name in requested]
    if None in ids:
        unknown = ", ".join(name for name, i in zip(requested, ids, strict=True) if i is None)
        known = ", ".join(f"{i} {name}" for i, name in enumerate(model.names))
        raise BadRequest(f"Unknown classes: {unknown[:200]}. Model {model.name} has, by id or name: {known}.")
    return sorted({i for i in ids if i is not None})
