"""Does a quick engine see what the reference sees? Asked once, of a real street, before anybody is served by it.

The reference's answer lies in the model folder, so that a server loads no second runtime just to ask it.
"""

from pathlib import Path
from typing import Final, NamedTuple
from zipfile import BadZipFile

import numpy as np

from service.errors import EngineUnavailable, ManifestError
from service.imaging.decode import decode
from service.imaging.letterbox import letterbox
from service.types import Engine, Size, UInt8Array

ROLE: Final = "self_test"
SCENE: Final = Path(__file__).parents[1] / "web" / "scene.jpg"
# Of pixels, as model_export/verify.py's: what arithmetic of so many digits reaches, and a broken kernel does not.
AGREEING: Final = {"openvino-cpu": 0.999, "openvino-bf16": 0.985, "openvino-int8": 0.96}


class SelfTest(NamedTuple):
    """picture: (1, H, W, 3) uint8 RGB. ids: (1, H, W) uint8, the reference's class map of it."""

    picture: UInt8Array
    ids: UInt8Array

    @classmethod
    def ask(cls, reference: Engine, bucket: Size) -> "SelfTest":
        """Let the reference see the drawn street in a bucket of (height, width)."""
        picture = street(bucket)
        return cls(picture, reference.infer(picture).ids)

    @classmethod
    def load(cls, path: Path) -> "SelfTest":
        """Read what `save` wrote; raises ManifestError when it is something else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                test = cls(file["picture"], file["ids"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ManifestError(f"{path} is no self-test: {error}. Run `alignseg export` again.") from error
        shape = test.ids.shape
        if len(shape) != 3 or test.picture.shape != (*shape, 3) or {a.dtype for a in test} != {np.dtype(np.uint8)}:
            raise ManifestError(
                f"{path} holds a picture of {test.picture.shape} {test.picture.dtype} and ids of {shape} "
                f"{test.ids.dtype}; expected (1, H, W, 3) and (1, H, W) uint8. Run `alignseg export` again."
            )
        return test

    def save(self, path: Path) -> None:
        """As a compressed .npz of the two arrays."""
        np.savez_compressed(path, picture=self.picture, ids=self.ids)

    def require_agreement(self, engine: Engine) -> None:
        """Raises EngineUnavailable, with the figures, when too few pixels agree."""
        agreeing = float((engine.infer(self.picture).ids == self.ids).mean())
        if agreeing < AGREEING[engine.name]:
            raise EngineUnavailable(
                f"on the self-test picture {agreeing:.2%} of its pixels agree with the reference, expected "
                f"{AGREEING[engine.name]:.1%}"
            )


def street(bucket: Size) -> UInt8Array:
    """A drawn street in a bucket of (height, width): (1, H, W, 3) uint8 RGB."""
    return letterbox(decode(SCENE.read_bytes(), max_pixels=10**7), [bucket]).pixels[None]
