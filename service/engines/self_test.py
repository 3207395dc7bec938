"""Does a quick engine see what the reference sees? Asked once, of a real street, before anybody is served by it."""

from pathlib import Path
from typing import Final

from service.contracts import Engine, UInt8Array
from service.decode import decode
from service.errors import EngineUnavailable
from service.prepare import Size, prepare

SCENE: Final = Path(__file__).parents[1] / "page" / "scene.jpg"
# Of pixels, as model_export/verify.py's: what arithmetic of so many digits reaches, and a broken kernel does not.
AGREEING: Final = {"openvino-cpu": 0.999, "openvino-bf16": 0.985, "openvino-int8": 0.96}


def street(bucket: Size) -> UInt8Array:
    """A drawn street in a bucket of (height, width): (1, H, W, 3) uint8 RGB."""
    return prepare(decode(SCENE.read_bytes(), max_pixels=10**7), [bucket]).pixels[None]


def require_agreement(engine: Engine, picture: UInt8Array, expected: UInt8Array) -> None:
    """expected: the reference's class map of `picture`, (1, H, W) uint8.

    Raises EngineUnavailable with the figures when too few pixels agree.
    """
    agreeing = float((engine.infer(picture).ids == expected).mean())
    if agreeing < AGREEING[engine.name]:
        raise EngineUnavailable(
            f"on the self-test picture {agreeing:.2%} of its pixels agree with the reference, expected "
            f"{AGREEING[engine.name]:.1%}"
        )
