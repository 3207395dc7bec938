"""Augmentation of a labelled image: scale, crop, mirror, colour, blur.

Images are uint8 (H, W, 3) RGB and labels uint8 (H, W) with IGNORED outside the image. All randomness comes from the
generator that is passed, so that a view is a function of its seed. Only the crop is resized, not the whole image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.data.corruptions import corrupt
from training.data.labels import IGNORED

Bytes = NDArray[np.uint8]
PADDING = (124, 116, 104)  # ImageNet's mean colour: near zero after normalisation


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; a strength of 0 disables one."""

    crop: tuple[int, int] = (360, 480)  # (height, width) of every view
    scale: tuple[float, float] = (0.5, 2.0)  # log-uniform: halving is as likely as doubling
    stretch: float = 0.1  # the aspect ratio changes by up to this share
    mirror: float = 0.5  # a probability, as blur
    colour: float = 0.4  # brightness, contrast and saturation change by up to this share
    hue: float = 0.15  # radians
    blur: float = 0.2
    blur_radius: float = 1.5  # pixels, at most
    corrupt: float = 0.0  # the probability of each corruption

    def __call__(self, picture: Bytes, labels: Bytes, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
        """One random view: picture (h, w, 3) and labels (h, w) of the crop's size."""
        picture, labels = self._place(picture, labels, rng)
        if rng.random() < self.mirror:
            picture, labels = picture[:, ::-1], labels[:, ::-1]
        picture = self._blur(picture, rng)
        picture = self._colour(picture, rng)
        if self.corrupt:
            picture = corrupt(picture, self.corrupt, rng)
        return np.ascontiguousarray(picture), np.ascontiguousarray(labels)

    def _place(self, picture: Bytes, labels: Bytes, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
        """Scale and crop in one step: the window is chosen in the image's own coordinates, and only it is resized."""
        scale = math.exp(rng.uniform(*np.log(self.scale)))
        stretch = math.exp(rng.uniform(-1, 1) * math.log1p(self.stretch) / 2)
        rows = _window(picture.shape[0], self.crop[0], scale * stretch, rng)
        columns = _window(picture.shape[1], self.crop[1], scale / stretch, rng)
        box = (columns.start, rows.start, columns.stop, rows.stop)
        size = (columns.size, rows.size)
        view = np.full((*self.crop, 3), PADDING, np.uint8)
        truth = np.full(self.crop, IGNORED, np.uint8)
        inside = np.s_[rows.offset : rows.offset + rows.size, columns.offset : columns.offset + columns.size]
        view[inside] = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, box))
        truth[inside] = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST, box))
        return view, truth

    def _blur(self, picture: Bytes, rng: np.random.Generator) -> Bytes:
        if rng.random() >= self.blur:
            return picture
        radius = rng.uniform(0.2, self.blur_radius)
        return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).filter(ImageFilter.GaussianBlur(radius)))

    def _colour(self, picture: Bytes, rng: np.random.Generator) -> Bytes:
        """Brightness, contrast, saturation and hue, which are affine in RGB, as one matrix and one shift."""
        brightness, contrast, saturation = 1.0 + rng.uniform(-self.colour, self.colour, 3)
        hue = rng.uniform(-self.hue, self.hue)
        matrix = (brightness * contrast * _saturation_matrix(saturation) @ _hue_matrix(hue)).astype(np.float32)
        pixels = picture.reshape(-1, 3).astype(np.float32)
        shift = np.float32(brightness * (1.0 - contrast)) * pixels.mean()
        changed: Bytes = (pixels @ matrix.T + shift).clip(0, 255).astype(np.uint8)
        return changed.reshape(picture.shape)


@dataclass(frozen=True)
class _Window:
    """One axis of a crop: [start, stop) in the source becomes `size` pixels at `offset` of the view."""

    start: float
    stop: float
    size: int
    offset: int


def _window(length: int, crop: int, scale: float, rng: np.random.Generator) -> _Window:
    """A random window of one axis: inside the scaled image if that is larger than the crop, else all of it, padded."""
    where = rng.random()
    size = min(crop, max(1, round(length * scale)))
    extent = min(float(length), size / scale)
    start = where * (length - extent)
    return _Window(start, start + extent, size, round(where * (crop - size)))


_GREY = np.array([0.299, 0.587, 0.114])


def _saturation_matrix(saturation: float) -> NDArray[np.float64]:
    """Mixes each colour with its grey: 1 keeps it, 0 is grey."""
    return saturation * np.eye(3) + (1.0 - saturation) * np.tile(_GREY, (3, 1))


def _hue_matrix(angle: float) -> NDArray[np.float64]:
    """The rotation of RGB space about its grey axis (Rodrigues)."""
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * (cross @ cross)
