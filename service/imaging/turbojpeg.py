"""Most JPEGs -> RGB directly through libjpeg-turbo: bit for bit the pixels that Pillow gives, in half the time.

Pillow uses the same library, but decodes to four bytes a pixel and then packs them into three, block by block. This way
also takes the GIL less often: beside the event loop and other codec threads, each time costs more than the work does.
"""

from typing import Final

import numpy as np
import simplejpeg
from PIL import Image

from service.types import UInt8Array

FORMATS: Final = frozenset({"JPEG", "MPO"})  # an MPO is a JPEG with more JPEGs behind it
_MODES: Final = frozenset({"L", "RGB"})  # not CMYK: whether its values are inverted, only Pillow's header says


def decode(data: bytes, image: Image.Image) -> UInt8Array | None:
    """Decode a JPEG whose header Pillow has read and whose size is within the limits.

    image: opened from `data`, not loaded; after `draft` its size is the reduced one, and so is the result's.
    Returns (H, W, 3) uint8 RGB of image.size, before EXIF orientation. None where Pillow has to decode: other formats,
    other colour spaces, and damaged files, for which Pillow has the error message.
    """
    if image.format not in FORMATS or image.mode not in _MODES:
        return None
    # A buffer of the size that was checked: simplejpeg reads the header again, and might read another size from it.
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    try:
        decoded = simplejpeg.decode_jpeg(data, "RGB", min_height=image.height, min_width=image.width, buffer=pixels)
    except ValueError:
        return None
    return pixels if decoded.shape == pixels.shape else None
