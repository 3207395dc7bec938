"""What weather, light, optics and compression do to an image; labels stay as they are.

Each corruption takes an image, uint8 (H, W, 3) RGB, a strength in 0..1 and a generator, and returns a new image of the
same shape. Strength 1 is what a person still reads without effort. Training draws them at random (see `corrupt`),
training/robustness.py measures a network under each at fixed strengths. The kinds follow ImageNet-C (Hendrycks &
Dietterich, ICLR 2019); the strengths are this project's own.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Bytes = NDArray[np.uint8]
Corruption = Callable[[Bytes, float, np.random.Generator], Bytes]


def light(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Over- or underexposure: a gamma between 1/2.2 and 2.2."""
    gamma = math.exp(_sign(rng) * strength * math.log(2.2))
    return _by_table(image, 255.0 * (np.arange(256) / 255.0) ** gamma)


def night(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Little light: darker by up to 85 %, a cast of street lamps or of dusk, and a sensor's noise."""
    gain = (1.0 - 0.85 * strength) * (1.0 + 0.3 * strength * rng.uniform(-1, 1) * np.array([1.0, 0.0, -1.0]))
    dark = image * gain.astype(np.float32)
    return _clip(dark + _gaussian(image, rng) * (np.sqrt(np.maximum(dark, 0)) * 0.8 + 3.0) * np.float32(strength))


def haze(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Fog and spray: colours fade to a light grey by up to 65 %, more towards the top, which is further away."""
    air = np.float32(rng.uniform(150, 225))
    share = np.linspace(1.0, rng.uniform(0.3, 1.0), image.shape[0], dtype=np.float32)[:, None, None] * 0.65 * strength
    return _clip(image * (1 - share) + air * share)


def rain(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Streaks of light in one direction over an image of less contrast."""
    height, width = image.shape[:2]
    drops = (rng.random((height, width), dtype=np.float32) < 0.004 + 0.012 * strength).astype(np.float32)
    streaks = _smear(drops, 5 + round(10 * strength), math.radians(90 + rng.uniform(-25, 25)))[..., None] * 5.0
    faded = image * np.float32(1 - 0.35 * strength) + np.float32(0.35 * strength * 140)
    return _clip(faded + np.minimum(streaks, 1.0) * np.float32(40 + 80 * strength))


def defocus(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Gaussian blur of up to 3 pixels."""
    return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.5 + 2.5 * strength)))


def motion(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Motion blur of up to 13 pixels in any direction."""
    return _clip(_smear(image.astype(np.float32), 2 + round(11 * strength), rng.uniform(0, math.pi)))


def jpeg(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """JPEG of quality 60 down to 8."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=round(60 - 52 * strength))
    return np.array(Image.open(buffer))


def noise(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Gaussian noise of a standard deviation of up to 40."""
    return _clip(image + _gaussian(image, rng) * np.float32(4 + 36 * strength))


def cast(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """A wrong white balance: each channel brighter or darker by up to 40 %."""
    gains = 1.0 + 0.4 * strength * rng.uniform(-1, 1, 3)
    return _clip(image * gains.astype(np.float32))


CORRUPTIONS: dict[str, Corruption] = {
    corruption.__name__: corruption for corruption in (light, night, haze, rain, defocus, motion, jpeg, noise, cast)
}
"""By name, in the order of a table of results."""


def corrupt(image: Bytes, probability: float, rng: np.random.Generator) -> Bytes:
    """Apply each corruption with `probability`, at a strength drawn evenly from 0..1, in an order that cameras have."""
    for name in _ORDER:
        if rng.random() < probability:
            image = CORRUPTIONS[name](image, float(rng.random()), rng)
    return image


_ORDER = ("haze", "rain", "light", "cast", "defocus", "motion", "night", "noise", "jpeg")


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _clip(pixels: NDArray[Any]) -> Bytes:
    clipped: Bytes = (pixels + np.float32(0.5)).clip(0, 255).astype(np.uint8)
    return clipped


def _by_table(image: Bytes, table: NDArray[np.float64]) -> Bytes:
    mapped: Bytes = np.rint(table).clip(0, 255).astype(np.uint8)[image]
    return mapped


def _gaussian(image: Bytes, rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.standard_normal(image.shape, dtype=np.float32)


def _smear(pixels: NDArray[np.float32], length: int, angle: float) -> NDArray[np.float32]:
    """The mean of `length` copies, each moved one pixel further along `angle`; edges are repeated."""
    reach = length // 2 + 1
    padded = np.pad(pixels, ((reach, reach), (reach, reach)) + ((0, 0),) * (pixels.ndim - 2), mode="edge")
    total = np.zeros_like(pixels)
    for step in range(length):
        along = step - (length - 1) / 2
        row, column = reach + round(along * math.sin(angle)), reach + round(along * math.cos(angle))
        total += padded[row : row + pixels.shape[0], column : column + pixels.shape[1]]
    smeared: NDArray[np.float32] = total / np.float32(length)
    return smeared
