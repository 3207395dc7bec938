"""Reads the file of labels: one value a pixel, in whatever depth it is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.errors import DatasetError

_STEPS = {"L;2": 85, "L;4": 17}  # Pillow scales grey of 2 and 4 bits to 0..255
IGNORED = 255
"""The label of pixels that loss and metrics ignore."""


def read_labels(path: Path, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Raw labels, uint8 (H, W), of an image of `shape`: the indices of a palette, or grey of 1 to 32 bits.

    Values beyond 0..255, such as 65535 for void in 16 bits, become IGNORED. Raises DatasetError that names the file.
    """
    try:
        with Image.open(path) as image:
            step = _STEPS.get(str(image.tile[0].args), 1) if image.tile else 1
            raw: NDArray[Any] = np.asarray(image)
            mode = image.mode
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and more for damaged files
        raise DatasetError(f"{path} can't be read as labels: {error}. Unpack the data set again.") from error
    if raw.ndim != 2 or raw.dtype.kind not in "bui":
        raise DatasetError(
            f"{path}: got labels of mode {mode}, {raw.dtype} {raw.shape}; expected one integer a pixel: a grey or "
            "palette PNG of class ids. Colours must be converted to ids first."
        )
    if raw.shape != shape:
        raise DatasetError(
            f"{path}: got labels of shape {raw.shape}, expected {shape}, as the image. Unpack the data set again."
        )
    if raw.dtype.itemsize == 1:
        return raw.astype(np.uint8) // step
    return np.where((raw >= 0) & (raw < IGNORED), raw, IGNORED).astype(np.uint8)
