"""A segmented picture, as all forms of answers are made from it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from service.errors import BadRequest
from service.model_folder.manifest import Manifest
from service.types import UInt8Array

UNSELECTED: Final = 255  # id of pixels whose class was not asked for; models have at most 255 classes, 0 to 254


@dataclass(frozen=True, slots=True)
class Segmentation:
    """One picture and its maps, all at the picture's own size.

    pixels: (H, W, 3) uint8 RGB, the picture as decoded; None where nobody wants to see it.
    ids: (H, W) uint8 class ids.
    timing_ms: the stages so far. encoding_since: perf_counter() at which encoding began.
    confidence: (H, W) uint8, 255 times the chosen class's probability, if asked for. tiles: how many it took.
    """

    model: Manifest
    pixels: UInt8Array | None
    ids: UInt8Array
    timing_ms: Mapping[str, float]
    encoding_since: float
    confidence: UInt8Array | None = None
    tiles: int = 1

    def timing_until_now(self) -> dict[str, float]:
        """Milliseconds of each stage, encoding included."""
        encode_ms = (time.perf_counter() - self.encoding_since) * 1e3
        return {stage: round(ms, 3) for stage, ms in {**self.timing_ms, "encode": encode_ms}.items()}

    @property
    def picture(self) -> UInt8Array:
        """The pixels, for who asked for them."""
        if self.pixels is None:
            raise ValueError(
                "the picture was segmented without its pixels; answers.shows_picture says when they are needed"
            )
        return self.pixels

    def restricted_to(self, class_ids: Sequence[int]) -> Self:
        """All other pixels are UNSELECTED."""
        table = bytes(i if i in class_ids else UNSELECTED for i in range(256))
        # Three times as fast as NumPy's look-up, which makes eight bytes of every index first.
        ids = np.frombuffer(self.ids.tobytes().translate(table), dtype=np.uint8)
        return replace(self, ids=ids.reshape(self.ids.shape))


def find_classes(wanted: Sequence[str], model: Manifest) -> list[int]:
    """Ids of classes given by name (in any case) or id, in order of the ids.

    Raises BadRequest that lists the model's classes.
    """
    if not wanted:
        return []
    by_name = {str(i): i for i in range(len(model.names))}
    by_name |= {name.casefold(): i for i, name in enumerate(model.names)}
    by_name |= {name: i for i, name in enumerate(model.names)}
    found = [by_name.get(name, by_name.get(name.casefold())) for name in wanted]
    if None in found:
        unknown = ", ".join(name for name, i in zip(wanted, found, strict=True) if i is None)
        known = ", ".join(f"{i} {name}" for i, name in enumerate(model.names))
        raise BadRequest(f"classes has {unknown[:200]}; {model.name} knows these, by id or name: {known}.")
    return sorted({i for i in found if i is not None})
