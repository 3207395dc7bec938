"""Compares a fast engine with the reference, ONNX Runtime on the CPU, on one image before it serves any request.

The export puts the image and the reference's class map into the model folder, so that a server need not load ONNX
Runtime only to compare.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple
from zipfile import BadZipFile

import numpy as np

from service.errors import EngineUnavailable, ManifestError
from service.imaging.decode import decode
from service.imaging.letterbox import letterbox
from service.types import Engine, Size, UInt8Array
from service.web import SCENE

ROLE: Final = "self_test"  # the file's role in model.json
# Share of pixels of the reference's class. Below it the engine's precision is not the reason: a kernel is wrong.
AGREEING: Final = {"fp32": 0.999, "fp16": 0.997, "bf16": 0.985, "int8": 0.96, "fp8": 0.96}
_PRECISION: Final = re.compile(r"-(fp32|fp16|bf16|int8|fp8)(-gpu\d+)?$")  # of an engine, by its name; none is fp32


class ReferenceCheck(NamedTuple):
    """image: (1, H, W, 3) uint8 RGB. ids: (1, H, W) uint8, the reference's class map of it."""

    image: UInt8Array
    ids: UInt8Array

    @classmethod
    def from_reference(cls, reference: Engine, bucket: Size) -> "ReferenceCheck":
        """Run the reference on the street scene in a bucket of (height, width)."""
        image = street_scene(bucket)
        return cls(image, reference.infer(image).ids)

    @classmethod
    def load(cls, path: Path) -> "ReferenceCheck":
        """Read a file that `save` wrote. Raises ManifestError for any other content."""
        try:
            with np.load(path, allow_pickle=False) as file:
                check = cls(file["picture"], file["ids"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ManifestError(
                f"{path} is not a reference check: {error}. Export the model again with `alignseg export`."
            ) from error
        shape = check.ids.shape
        if len(shape) != 3 or check.image.shape != (*shape, 3) or {a.dtype for a in check} != {np.dtype(np.uint8)}:
            raise ManifestError(
                f"{path} holds an image of {check.image.shape} {check.image.dtype} and ids of {shape} "
                f"{check.ids.dtype}; expected (1, H, W, 3) and (1, H, W) uint8. "
                "Export the model again with `alignseg export`."
            )
        return check

    def save(self, path: Path) -> None:
        """Write a compressed .npz with the arrays `picture` and `ids`."""
        np.savez_compressed(path, picture=self.image, ids=self.ids)

    def require_agreement(self, engine: Engine) -> None:
        """Raises EngineUnavailable, with both figures, when too few pixels have the reference's class."""
        agreeing = float((engine.infer(self.image).ids == self.ids).mean())
        precision = _PRECISION.search(engine.name)
        expected = AGREEING[precision[1] if precision else "fp32"]
        if agreeing < expected:
            raise EngineUnavailable(
                f"{agreeing:.2%} of the pixels of the check image agree with the reference, expected at least "
                f"{expected:.1%}"
            )


def street_scene(bucket: Size) -> UInt8Array:
    """The drawn street scene in a bucket of (height, width): (1, H, W, 3) uint8 RGB."""
    return letterbox(decode(SCENE.read_bytes(), max_pixels=10**7), [bucket]).pixels[None]
