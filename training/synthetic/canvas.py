"""Camera, light, canvas (an image and its label map) and noise for rendered street scenes.

World axes in metres: x right, y up, z ahead of the camera; the ground is y = 0. Colours are RGB floats in [0, 255].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from math import exp, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Color = tuple[float, float, float]
Point = tuple[float, float, float]
Pixel = tuple[float, float]
Field = npt.NDArray[np.floating[Any]]

NEAR = 1.2  # metres; nothing nearer than the bumper is drawn
NOISE_SIDE = 512
SMOOTH, LEAFY, SANDY = 0.85, 0.42, 0.12  # roughness of stains and clouds, of leaves, of grain


class Label(IntEnum):
    """CamVid's eleven classes, by their ids."""

    SKY = 0
    BUILDING = 1
    POLE = 2
    ROAD = 3
    PAVEMENT = 4
    TREE = 5
    SIGN = 6
    FENCE = 7
    CAR = 8
    PEDESTRIAN = 9
    BICYCLIST = 10


@dataclass(frozen=True, slots=True)
class Camera:
    """A level pinhole camera over a road that bends: at depth z the street lies bend * z**2 to the right.

    width, height, focal, centre_x and horizon are in pixels of the supersampled canvas, eye in metres.
    """

    width: int
    height: int
    focal: float
    centre_x: float
    horizon: float
    eye: float
    bend: float

    def project(self, point: Point) -> Pixel:
        """(u, v) of a point in front of the camera."""
        x, y, z = point
        scale = self.focal / z
        return self.centre_x + (x + self.bend * z * z) * scale, self.horizon + (self.eye - y) * scale

    def outline(self, points: Sequence[Point]) -> list[Pixel]:
        """The polygon in pixels, clipped at the near plane; fewer than three points when nothing is visible."""
        if all(point[2] >= NEAR for point in points):
            return [self.project(point) for point in points]
        return [self.project(point) for point in _cut(points)]


def _cut(points: Sequence[Point]) -> list[Point]:
    kept: list[Point] = []
    for a, b in zip(points, [*points[1:], points[0]], strict=True):
        if a[2] >= NEAR:
            kept.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            kept.append(mix(a, b, (NEAR - a[2]) / (b[2] - a[2])))
    return kept


def mix(a: Point, b: Point, share: float) -> Point:
    """The point, or colour, `share` of the way from a to b."""
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share


def normal_of(points: Sequence[Point], away_from: Point) -> Point:
    """Unit normal of a polygon's first three points, on the side that does not face `away_from`."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = points[0], points[1], points[2]
    ux, uy, uz, vx, vy, vz = bx - ax, by - ay, bz - az, cx - bx, cy - by, cz - bz
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    size = sqrt(nx * nx + ny * ny + nz * nz) or 1.0
    if nx * (ax - away_from[0]) + ny * (ay - away_from[1]) + nz * (az - away_from[2]) < 0:
        size = -size
    return nx / size, ny / size, nz / size


@dataclass(frozen=True, slots=True)
class Light:
    """Sun, sky and haze.

    towards: unit vector to the sun. sun, ambient: what they multiply a colour by. haze: the colour of distance.
    """

    towards: Point
    sun: Color
    ambient: Color
    haze: Color
    density: float

    def shade(self, color: Color, normal: Point, z: float, lit: float = 1.0) -> Color:
        """The colour at depth z, with haze. lit: share of the sun that reaches it, 0..1."""
        to = self.towards
        sun = lit * max(0.0, normal[0] * to[0] + normal[1] * to[1] + normal[2] * to[2])
        sky = 0.8 + 0.2 * normal[1]
        shaded = [c * (a * sky + s * sun) for c, a, s in zip(color, self.ambient, self.sun, strict=True)]
        return mix((shaded[0], shaded[1], shaded[2]), self.haze, 1.0 - exp(-self.density * z))


class Canvas:
    """An image and its label map, drawn together, and the shadows on the ground, drawn before both."""

    def __init__(self, camera: Camera, light: Light) -> None:
        self.camera, self.light = camera, light
        size = (camera.width, camera.height)
        self.shadow = Image.new("L", size, 0)
        self.load(Image.new("RGB", size), Image.new("L", size, Label.SKY))

    def load(self, picture: Image.Image, labels: Image.Image) -> None:
        """Draw on these two images from now on."""
        self.picture, self.labels = picture, labels
        self._paint, self._mark = ImageDraw.Draw(picture), ImageDraw.Draw(labels)

    def fill(self, outline: Sequence[Pixel], color: Color | None, label: Label) -> None:
        """Draw a polygon given in pixels; without a colour, only the labels change."""
        if len(outline) < 3:
            return
        if color is not None:
            self._paint.polygon(outline, fill=_ink(color))
        self._mark.polygon(outline, fill=int(label))

    def face(self, points: Sequence[Point], color: Color, label: Label, lit: float = 1.0) -> None:
        """Draw a polygon of the world, lit on the side that faces the camera."""
        x, y, z = points[0]
        x, y, z = normal_of(points, (2 * x, 2 * y - self.camera.eye, 2 * z))
        depth = max(NEAR, sum(point[2] for point in points) / len(points))
        self.fill(self.camera.outline(points), self.light.shade(color, (x, y, z), depth, lit), label)

    def paste(self, sprite: Image.Image, corner: tuple[int, int], label: Label) -> None:
        """Draw an RGBA sprite with its top left pixel at `corner`; pixels with alpha above one half get the label."""
        mask = sprite.getchannel("A")
        self.picture.paste(sprite, corner, mask)
        self.labels.paste(int(label), (*corner, corner[0] + sprite.width, corner[1] + sprite.height), mask.point(_half))

    def darken(self, points: Sequence[Point], strength: float) -> None:
        """Draw a shadow on the ground; overlapping shadows do not add up."""
        outline = self.camera.outline(points)
        if len(outline) >= 3:
            ImageDraw.Draw(self.shadow).polygon(outline, fill=int(255 * strength))

    def soften(self) -> None:
        """Blur the edges of the shadows, after all are drawn."""
        self.shadow = self.shadow.filter(ImageFilter.BoxBlur(self.camera.width / 500))

    def sunlight(self, x: float, z: float) -> float:
        """Share of the sun that reaches the ground at (x, z), 0..1."""
        u, v = self.camera.project((x, 0.0, max(z, NEAR)))
        column, row = min(max(int(u), 0), self.camera.width - 1), min(max(int(v), 0), self.camera.height - 1)
        value = self.shadow.getpixel((column, row))
        return 1.0 - float(value) / 255 if isinstance(value, int | float) else 1.0


def _ink(color: Color) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, int(channel))) for channel in color)
    return red, green, blue


def _half(alpha: int) -> int:
    return 255 if alpha > 127 else 0


@cache
def noise_table(roughness: float) -> Field:
    """(512, 512) float32 of zero mean and unit deviation that tiles seamlessly.

    Its amplitude falls with frequency f as f ** (-2 * roughness): 0 is white noise. All scenes use the
    same table at different offsets.
    """
    rng = np.random.default_rng(int(roughness * 100))
    steps = np.fft.fftfreq(NOISE_SIDE) * NOISE_SIDE
    radius = np.maximum(1.0, np.hypot(steps[:, None], steps[None, :]))
    spectrum = np.fft.fft2(rng.standard_normal((NOISE_SIDE, NOISE_SIDE))) / radius ** (2 * roughness)
    table = np.fft.ifft2(spectrum).real
    normalised: Field = ((table - table.mean()) / table.std()).astype(np.float32)
    return normalised


def noise_at(x: Field, y: Field, roughness: float) -> Field:
    """Noise at coordinates in table cells, by nearest neighbour; x and y broadcast."""
    columns = np.floor(x).astype(np.int32) & (NOISE_SIDE - 1)
    rows = np.floor(y).astype(np.int32) & (NOISE_SIDE - 1)
    values: Field = noise_table(roughness)[rows, columns]
    return values


def ramp(value: Field, start: float, end: float) -> Field:
    """Smooth step: 0 below start, 1 above end; start may be larger than end."""
    share: Field = np.clip((value - start) / (end - start), 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)
