"""People, cyclists and trees."""

from itertools import pairwise

import numpy as np
from PIL import Image

from training.synthetic.canvas import LEAFY, NOISE_SIDE, Canvas, Color, Field, Label, Point, mix, noise_table, ramp

METAL: Color = (92, 98, 100)
SKIN: tuple[Color, ...] = ((214, 170, 140), (186, 136, 104), (120, 82, 60), (224, 184, 158))
CLOTH: tuple[Color, ...] = (
    (40, 44, 58), (120, 36, 40), (60, 84, 120), (150, 140, 124), (58, 74, 58),
    (34, 34, 36), (176, 150, 96), (190, 190, 192),
)  # fmt: skip


class Cutout:
    """A flat figure that faces the camera, drawn in (dx, y) metres relative to its foot."""

    def __init__(self, canvas: Canvas, x: float, z: float, label: Label) -> None:
        self.canvas, self.x, self.z, self.label = canvas, x, z, label
        self.lit = canvas.sunlight(x, z)
        self._scale = canvas.camera.focal / z
        self._foot = canvas.camera.project((x, 0.0, z))

    def poly(self, points: list[tuple[float, float]], color: Color | None, glow: bool = False) -> None:
        """Draw a polygon. glow: do not shade it. Without a colour, only the labels change."""
        shaded = (
            color
            if glow or color is None
            else self.canvas.light.shade(color, (0.0, 0.3, -0.95), self.z, 0.55 * self.lit)
        )
        u, v = self._foot
        self.canvas.fill([(u + dx * self._scale, v - y * self._scale) for dx, y in points], shaded, self.label)

    def disc(self, at: tuple[float, float], radius: tuple[float, float], color: Color, glow: bool = False) -> None:
        """An ellipse."""
        turn = np.linspace(0.0, 2 * np.pi, 17)[:-1]
        points = [(at[0] + radius[0] * float(np.cos(t)), at[1] + radius[1] * float(np.sin(t))) for t in turn]
        self.poly(points, color, glow)

    def bar(self, a: tuple[float, float], b: tuple[float, float], width: tuple[float, float], color: Color) -> None:
        """A tapered stroke: half widths at a and at b."""
        dx, dy = b[0] - a[0], b[1] - a[1]
        size = (dx * dx + dy * dy) ** 0.5 or 1.0
        nx, ny = -dy / size, dx / size
        (ax, ay), (bx, by), (wa, wb) = a, b, width
        corners = [
            (ax + nx * wa, ay + ny * wa),
            (bx + nx * wb, by + ny * wb),
            (bx - nx * wb, by - ny * wb),
            (ax - nx * wa, ay - ny * wa),
        ]
        self.poly(corners, color)

    def limb(self, a: tuple[float, float], b: tuple[float, float], width: tuple[float, float], color: Color) -> None:
        """A bar with round ends, brighter on the side of the sun."""
        self.bar(a, b, width, mix(color, (0, 0, 0), 0.22))
        for at, radius in ((a, width[0]), (b, width[1])):
            self.disc(at, (radius, radius), mix(color, (0, 0, 0), 0.22))
        shift = 0.3 * (1 if self.canvas.light.towards[0] > 0 else -1)
        half = (width[0] * 0.62, width[1] * 0.62)
        self.bar((a[0] + shift * width[0], a[1]), (b[0] + shift * width[1], b[1]), half, color)


def cast(canvas: Canvas, x: float, z: float, height: float, width: float, strength: float = 0.9) -> None:
    """Draw the shadow of a slim object at (x, z)."""
    to = canvas.light.towards
    tip_x, tip_z = x - to[0] / to[1] * height, z - to[2] / to[1] * height
    size = ((tip_x - x) ** 2 + (tip_z - z) ** 2) ** 0.5
    nx, nz = (tip_z - z) / size * width, -(tip_x - x) / size * width
    canvas.darken(
        [(x - nx, 0, z - nz), (tip_x - nx, 0, tip_z - nz), (tip_x + nx, 0, tip_z + nz), (x + nx, 0, z + nz)], strength
    )


def pedestrian(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A person walking, 1.6 to 1.8 m tall."""
    body = Cutout(canvas, x, z, Label.PEDESTRIAN)
    coat, legs = CLOTH[int(rng.integers(len(CLOTH)))], CLOTH[int(rng.integers(3))]
    skin, hair = SKIN[int(rng.integers(len(SKIN)))], mix((30, 24, 20), (150, 110, 70), float(rng.random()) ** 2)
    step, tall = float(rng.uniform(0.06, 0.2)), float(rng.uniform(0.93, 1.05))
    for foot, hip in ((-step, -0.07), (step, 0.07)):
        body.limb((hip, 0.86 * tall), (hip + foot * 0.5, 0.46), (0.088, 0.066), legs)
        body.limb((hip + foot * 0.5, 0.46), (hip + foot * 0.9, 0.07), (0.062, 0.045), legs)
        body.limb((hip + foot * 0.9 - 0.02, 0.04), (hip + foot * 0.9 + 0.07, 0.03), (0.045, 0.035), (34, 30, 30))
    swing = float(rng.uniform(-0.1, 0.1))
    for side in (-1, 1):
        body.limb((side * 0.2, 1.36 * tall), (side * 0.25, 1.08), (0.062, 0.05), mix(coat, (0, 0, 0), 0.12))
        body.limb((side * 0.25, 1.08), (side * (0.24 + swing), 0.86), (0.048, 0.038), mix(coat, (0, 0, 0), 0.12))
        body.disc((side * (0.24 + swing), 0.83), (0.035, 0.045), skin)
    body.limb((0, 1.25 * tall), (0, 0.93 * tall), (0.185, 0.15), coat)
    if rng.random() < 0.4:
        body.limb((0, 1.26 * tall), (0, 1.06 * tall), (0.14, 0.13), CLOTH[int(rng.integers(len(CLOTH)))])  # a rucksack
    _head(body, 1.6 * tall, skin, hair)


def _head(body: Cutout, y: float, skin: Color, hair: Color) -> None:
    body.disc((0, y - 0.13), (0.05, 0.08), skin)
    body.disc((0, y), (0.085, 0.115), skin)
    body.disc((0, y + 0.035), (0.09, 0.09), hair)


def cyclist(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A cyclist seen from behind and a little to the side."""
    body = Cutout(canvas, x, z, Label.BICYCLIST)
    coat = ((206, 220, 60), (226, 110, 40), (70, 110, 170))[int(rng.integers(3))]
    frame = ((170, 40, 40), (40, 70, 130), (30, 30, 32))[int(rng.integers(3))]
    for at in (0.2, -0.14):
        _wheel(body, at, 0.33)
    for a, b in (
        ((-0.14, 0.34), (-0.02, 0.86)),
        ((0.16, 0.86), (-0.02, 0.62)),
        ((0.2, 0.34), (0.16, 0.98)),
        ((-0.14, 0.34), (0.02, 0.3)),
    ):
        body.bar(a, b, (0.022, 0.022), frame)
    for hip, knee, foot in (((-0.09, 0.92), (-0.1, 0.55), (-0.07, 0.2)), ((0.08, 0.92), (0.15, 0.68), (0.08, 0.4))):
        body.limb(hip, knee, (0.09, 0.07), (44, 46, 58))
        body.limb(knee, foot, (0.065, 0.045), (44, 46, 58))
        body.limb((foot[0] - 0.02, foot[1]), (foot[0] + 0.06, foot[1] - 0.02), (0.045, 0.04), (220, 220, 220))
    for side in (-1, 1):
        body.limb((side * 0.18 + 0.03, 1.33), (side * 0.3 + 0.08, 1.16), (0.06, 0.05), mix(coat, (0, 0, 0), 0.1))
        body.limb((side * 0.3 + 0.08, 1.16), (side * 0.24 + 0.12, 1.0), (0.048, 0.04), mix(coat, (0, 0, 0), 0.1))
    body.limb((0.03, 1.25), (0, 1.0), (0.18, 0.14), coat)
    body.bar((-0.15, 1.16), (0.17, 1.16), (0.022, 0.022), (236, 236, 228))
    _head(body, 1.6, SKIN[int(rng.integers(len(SKIN)))], (60, 50, 44))
    body.disc((0.0, 1.68), (0.115, 0.075), (230, 230, 232))


def _wheel(body: Cutout, at: float, radius: float) -> None:
    """A tyre at an angle; the label covers the whole disc, as in CamVid."""
    turn = np.linspace(0, 2 * np.pi, 21)
    rim = [(at + 0.13 * float(np.cos(t)), radius + radius * float(np.sin(t))) for t in turn]
    body.poly(rim, None)
    for a, b in pairwise(rim):
        body.bar(a, b, (0.028, 0.028), (32, 32, 34))
    for spoke in rim[:10:3]:
        body.bar(spoke, (2 * at - spoke[0], 2 * radius - spoke[1]), (0.006, 0.006), (150, 152, 156))


def tree(canvas: Canvas, rng: np.random.Generator, spot: Point, leaf: Color) -> None:
    """A trunk at (x, z) under a crown of radius spot[1]."""
    x, radius, z = spot
    trunk = Cutout(canvas, x, z, Label.TREE)
    trunk.limb((0, 0), (0.08, radius * 1.5), (0.085 * radius, 0.05 * radius), (96, 78, 62))
    for reach in (-0.6, 0.5):
        trunk.limb((0.05, radius * 1.1), (reach * radius, radius * 1.9), (0.04 * radius, 0.02 * radius), (88, 72, 58))
    crown(canvas, rng, (x, radius * 2.1, z), (radius, radius * 1.05), leaf)


def shade_of_tree(canvas: Canvas, rng: np.random.Generator, spot: Point) -> None:
    """The dappled shadow of a crown, as many small ellipses."""
    x, radius, z = spot
    to, high = canvas.light.towards, radius * 2.1
    x, z = x - to[0] / to[1] * high, z - to[2] / to[1] * high
    turn = np.linspace(0.0, 2 * np.pi, 9)[:-1]
    for dx, dz, size in rng.normal(0.0, (0.45, 0.6, 0.05), (42, 3)) * radius:
        ring = abs(float(size)) + 0.16 * radius
        canvas.darken([(x + dx + ring * float(np.cos(t)), 0.0, z + dz + ring * float(np.sin(t))) for t in turn], 0.85)


def crown(canvas: Canvas, rng: np.random.Generator, centre: Point, radius: tuple[float, float], leaf: Color) -> None:
    """A crown of overlapping shaded balls, with noise at the scale of leaves."""
    scale, (u, v) = canvas.camera.focal / centre[2], canvas.camera.project(centre)
    width, height = (max(6, int(2.5 * r * scale)) for r in radius)
    rng = np.random.default_rng(
        int(rng.integers(2**31))
    )  # one draw, visible or not, so that the scene does not depend on the image size
    if not -width / 2 < u < canvas.camera.width + width / 2:
        return
    balls = _balls(rng, canvas.light.towards, min(72, 12 + width // 4))
    grain = _leaves(rng, width, height, max(1.6, 0.075 * scale))
    inside, bright = (
        np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BILINEAR)) for part in balls
    )
    alpha = Image.fromarray((ramp(inside + 0.12 * grain, -0.03, 0.03) * 255).astype(np.uint8))
    tone = Image.fromarray(((0.5 + 0.5 * bright + 0.2 * grain).clip(0, 1.4) * 182).astype(np.uint8))
    light = canvas.light
    dark, clear = light.shade(leaf, (0, -0.4, -0.5), centre[2], 0.0), light.shade(leaf, light.towards, centre[2])
    inks = [
        [int(min(255.0, 0.62 * d + (c - 0.62 * d) * n / 200)) for n in range(256)]
        for d, c in zip(dark, clear, strict=True)
    ]
    sprite = Image.merge("RGBA", [*(tone.point(ink) for ink in inks), alpha])
    canvas.paste(sprite, (int(u - width / 2), int(v - height / 2)), Label.TREE)


def _balls(rng: np.random.Generator, towards: Point, side: int) -> tuple[Field, Field]:
    """Depth inside the nearest ball (negative outside) and brightness, about -1..1; (side, side) float32 each."""
    grid = np.linspace(-1.25, 1.25, side, dtype=np.float32)
    inside, front, bright = (np.full((side, side), start, np.float32) for start in (-1.0, -9.0, 0.0))
    for angle, reach, size in rng.uniform((0, 0, 0.26), (2 * np.pi, 1, 0.46), (26, 3)).astype(np.float32)[
        : 10 + side // 5
    ]:
        x, y = (
            (grid - 0.72 * np.sqrt(reach) * np.cos(angle))[None, :],
            (grid + 0.68 * np.sqrt(reach) * np.sin(angle))[:, None],
        )
        flat = x * x + y * y
        rise = np.sqrt(np.maximum(size * size - flat, 0.0))
        nearer = (rise > 0) & (rise + 0.3 * (1 - reach) > front)
        front = np.where(nearer, rise + 0.3 * (1 - reach), front)
        bright = np.where(
            nearer, (towards[0] * x - towards[1] * y - towards[2] * rise) / size + 0.25 * np.sin(angle), bright
        )
        inside = np.maximum(inside, size - np.sqrt(flat))
    return inside, bright


def _leaves(rng: np.random.Generator, width: int, height: int, leaf: float) -> Field:
    columns, rows = (min(NOISE_SIDE, int(side / leaf * 2) + 2) for side in (width, height))
    left, top = (int(rng.random() * (NOISE_SIDE - side)) for side in (columns, rows))
    patch = noise_table(LEAFY)[top : top + rows, left : left + columns]
    return np.asarray(Image.fromarray(patch).resize((width, height), Image.Resampling.BICUBIC))
