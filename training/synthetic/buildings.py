"""Houses with shops and roofs on both sides of the street, and the brick texture of their walls."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from training.synthetic.canvas import SANDY, SMOOTH, Canvas, Color, Label, Point, mix, noise_at
from training.synthetic.ground import Street

STOREY = 3.0
PLASTER: tuple[Color, ...] = (
    (168, 104, 80), (150, 88, 70), (186, 156, 116), (196, 176, 138), (222, 214, 198), (206, 196, 176),
    (176, 164, 148), (212, 190, 160), (140, 96, 78), (190, 120, 92), (224, 220, 212),
)  # fmt: skip
SHOP: tuple[Color, ...] = (
    (30, 74, 60),
    (120, 28, 34),
    (28, 44, 86),
    (44, 44, 48),
    (150, 104, 36),
    (58, 92, 110),
    (96, 30, 74),
)
SLATE: tuple[Color, ...] = ((96, 98, 108), (118, 84, 72), (84, 82, 84))
FRAME: Color = (228, 226, 220)
GLASS: Color = (62, 74, 88)

Draw = Callable[[], None]


class House:
    """One house: its side (-1 or +1), depths near and far, storeys and colours."""

    def __init__(
        self, canvas: Canvas, rng: np.random.Generator, street: Street, side: int, near: float, far: float
    ) -> None:
        self.canvas, self.side, self.near, self.far = canvas, side, near, far
        self.front = street.wall(side)
        self.storeys = int(rng.integers(2, 5))
        self.eaves = self.storeys * STOREY + float(rng.uniform(0.3, 0.9))
        self.wall = PLASTER[int(rng.integers(len(PLASTER)))]
        self.slate = SLATE[int(rng.integers(len(SLATE)))]
        self.shop = SHOP[int(rng.integers(len(SHOP)))] if rng.random() < 0.55 else None
        self.pitched, self.awning = bool(rng.random() < 0.7), bool(rng.random() < 0.4)
        self.curtain = float(rng.uniform(0.0, 0.6))
        self.bays = max(2, round((far - near) / float(rng.uniform(2.3, 3.1))))

    def draw(self) -> None:
        """Draw far parts first; nothing when even the far edge is outside the image."""
        u, _ = self.canvas.camera.project((self.front, 0.0, self.far))
        if not 0 <= u < self.canvas.camera.width:
            return
        self._roof()
        self._end_wall()
        self._rect(self.near, self.far, 0.0, self.eaves, 0.0, self.wall)
        self._cornice()
        width = (self.far - self.near) / self.bays
        for bay in reversed(range(self.bays)):
            self._bay(self.near + bay * width, width, bay)
        if self.shop is not None:
            self._shop_front(self.shop)

    def cast(self) -> None:
        """Draw the shadow on the ground."""
        to = self.canvas.light.towards
        dx, dz = -to[0] / to[1] * self.eaves, -to[2] / to[1] * self.eaves
        x = self.front
        self.canvas.darken(
            [(x, 0, self.near), (x + dx, 0, self.near + dz), (x + dx, 0, self.far + dz), (x, 0, self.far)], 1.0
        )

    def _rect(self, near: float, far: float, low: float, high: float, out: float, color: Color) -> None:
        """A rectangle parallel to the facade, `out` metres before it."""
        x = self.front - self.side * out
        points = [(x, low, near), (x, low, far), (x, high, far), (x, high, near)]
        self.canvas.face(points, color, Label.BUILDING)

    def _shelf(self, near: float, far: float, y: float, drop: float, out: float, color: Color) -> None:
        """An awning, sill or ledge: from the wall at y to `drop` lower, `out` metres before it."""
        x, edge = self.front, self.front - self.side * out
        self.canvas.face(
            [(x, y, near), (x, y, far), (edge, y - drop, far), (edge, y - drop, near)], color, Label.BUILDING
        )

    def _end_wall(self) -> None:
        x, back, z = self.front, self.front + 9 * self.side, self.near
        gable = [((x + back) / 2, self.eaves + 2.6, z)] if self.pitched else []
        points: list[Point] = [(x, 0, z), (x, self.eaves, z), *gable, (back, self.eaves, z), (back, 0, z)]
        self.canvas.face(points, mix(self.wall, (120, 110, 100), 0.3), Label.BUILDING)
        for storey in range(1, self.storeys):
            for out in (2.2, 5.6):
                left, low = x + self.side * out, storey * STOREY + 0.95
                for grow, color in ((0.08, FRAME), (0.0, mix(GLASS, (176, 196, 214), 0.25))):
                    a, b, c, d = left - grow, left + self.side * 1.1 + grow, low - grow, low + 1.5 + grow
                    self.canvas.face([(a, c, z), (b, c, z), (b, d, z), (a, d, z)], color, Label.BUILDING)

    def _roof(self) -> None:
        if not self.pitched:
            return
        ridge, top = self.front + 4.5 * self.side, self.eaves + 2.6
        for z in (self.far - 0.9, self.near + 0.4):
            self._chimney(ridge, top, z)
        x = self.front
        eaves = [(x, self.eaves, self.near), (x, self.eaves, self.far), (ridge, top, self.far), (ridge, top, self.near)]
        self.canvas.face([(p[0], p[1], p[2]) for p in eaves], self.slate, Label.BUILDING)

    def _chimney(self, x: float, y: float, z: float) -> None:
        left, right, top = x - 0.5, x + 0.5, y + 1.2
        face, brick = self.canvas.face, mix(self.wall, (110, 70, 58), 0.5)
        street_side = right if self.side < 0 else left
        face(
            [
                (street_side, y - 1, z),
                (street_side, top, z),
                (street_side, top, z + 0.7),
                (street_side, y - 1, z + 0.7),
            ],
            brick,
            Label.BUILDING,
        )
        face([(left, y - 1, z), (right, y - 1, z), (right, top, z), (left, top, z)], brick, Label.BUILDING)
        for pot in (left + 0.2, right - 0.42):
            face(
                [(pot, top, z), (pot + 0.22, top, z), (pot + 0.22, top + 0.4, z), (pot, top + 0.4, z)],
                (176, 104, 78),
                Label.BUILDING,
            )

    def _cornice(self) -> None:
        self._rect(self.near, self.far, self.eaves - 0.35, self.eaves, 0.12, mix(self.wall, FRAME, 0.5))
        if not self.pitched:
            self._rect(self.near, self.far, self.eaves, self.eaves + 0.5, 0.0, mix(self.wall, (90, 90, 90), 0.2))
        self._rect(
            self.near, self.near + 0.14, 0, self.eaves, 0.03, mix(self.wall, (40, 40, 40), 0.45)
        )  # the drainpipe

    def _bay(self, z: float, width: float, bay: int) -> None:
        for storey in range(0 if self.shop is None else 1, self.storeys):
            if storey == 0 and bay == self.bays - 1:
                self._door(z + width * 0.3)
            else:
                low = storey * STOREY + 0.95
                self._window(z + width * 0.24, z + width * 0.76, low, low + (1.65 if storey < 3 else 1.2), bay + storey)

    def _window(self, near: float, far: float, low: float, high: float, number: int) -> None:
        """Frame, recessed panes with the sky in their upper half, bars, sill and lintel."""
        self._rect(near - 0.08, far + 0.08, high, high + 0.22, 0.02, mix(self.wall, FRAME, 0.6))
        self._rect(near, far, low, high, 0.0, FRAME)
        middle = (low + high) / 2
        for bottom, top, tone in ((low + 0.08, middle - 0.04, 0.0), (middle + 0.04, high - 0.08, 0.22)):
            color = mix(GLASS, (176, 196, 214), tone + 0.12 * (number % 3))
            self._rect(near + 0.08, far - 0.08, bottom, top, -0.06, color)
        if (number * 7) % 5 < 5 * self.curtain:
            self._rect(far - 0.32, far - 0.08, low + 0.08, high - 0.08, -0.06, (178, 172, 160))
        if near < 45:
            self._rect((near + far) / 2 - 0.03, (near + far) / 2 + 0.03, low, high, 0.0, FRAME)
            self._shelf(near - 0.1, far + 0.1, low, 0.05, 0.16, FRAME)
            self._rect(near - 0.1, far + 0.1, low - 0.16, low - 0.05, 0.12, mix(self.wall, (50, 50, 50), 0.3))

    def _door(self, z: float) -> None:
        self._rect(z - 0.1, z + 1.15, 0.0, 2.45, 0.03, FRAME)
        self._rect(z, z + 1.05, 0.05, 2.1, -0.05, self.shop or SHOP[int(self.far) % len(SHOP)])
        self._rect(z + 0.1, z + 0.95, 2.15, 2.38, -0.05, GLASS)

    def _shop_front(self, color: Color) -> None:
        near, far = self.near + 0.3, self.far - 0.3
        self._rect(near, far, 0.0, 3.0, 0.06, color)
        panes = max(2, round((far - near) / 1.7))
        width = (far - near) / panes
        for pane in range(panes):
            z, door = near + pane * width, pane == panes // 2
            self._pane(z + 0.08, z + width - 0.08, 0.08 if door else 0.55, pane)
        self._rect(near, far, 2.42, 3.05, 0.16, mix(color, (255, 255, 255), 0.06))
        self._lettering(near, far)
        if self.awning:
            self._stripes(near + 0.2, far - 0.2, color)

    def _pane(self, near: float, far: float, low: float, number: int) -> None:
        """A shop window: dim inside, lit from above, goods at the foot, the sky's reflection across."""
        self._rect(near, far, low, 2.32, -0.08, (58, 60, 64))
        self._rect(near, far, 2.02, 2.32, -0.08, (172, 150, 112))
        self._rect(near, far, 1.6, 2.02, -0.08, (104, 98, 88))
        if low > 0.5 and near < 50:
            for item in range(4):
                z, tall = near + (0.08 + 0.22 * item) * (far - near), 0.25 + 0.17 * ((item * 3 + number * 5) % 4)
                goods = SHOP[(item + number * 3) % len(SHOP)]
                self._rect(
                    z,
                    z + 0.16 * (far - near),
                    low,
                    low + tall,
                    -0.08,
                    mix(goods, (236, 206, 170), 0.35 + 0.1 * (item % 3)),
                )
        x, shine = self.front + 0.07 * self.side, mix(GLASS, (170, 190, 208), 0.45)
        a, b = near + 0.5 * (far - near), near + 0.72 * (far - near)
        self.canvas.face([(x, low, a - 0.2), (x, low, b - 0.3), (x, 2.3, b), (x, 2.3, a)], shine, Label.BUILDING)

    def _lettering(self, near: float, far: float) -> None:
        """Strokes that look like a shop's name."""
        z, end, stroke = near + (far - near) * 0.22, near + (far - near) * 0.78, 0
        while z < end and z < 40:
            width = (0.16, 0.26, 0.1, 0.22)[stroke % 4]
            self._rect(z, z + width, 2.58, (2.9, 2.82, 2.86)[stroke % 3], 0.18, (240, 226, 190))
            z, stroke = z + width + (0.1 if stroke % 5 else 0.3), stroke + 1

    def _stripes(self, near: float, far: float, color: Color) -> None:
        count = max(4, round((far - near) / 0.5))
        width = (far - near) / count
        for stripe in range(count):
            shade = mix(color, (255, 255, 255), 0.82 if stripe % 2 else 0.12)
            z = near + stripe * width
            self._shelf(z, z + width, 2.5, 0.55, 1.3, shade)
            self._rect(z, z + width, 1.8, 1.96, 1.3, mix(shade, (0, 0, 0), 0.12))


def texture_walls(canvas: Canvas, street: Street) -> None:
    """Add brick courses, stains and a darker foot to all walls drawn so far."""
    camera = canvas.camera
    slope = (np.arange(camera.width, dtype=np.float32) + 0.5 - camera.centre_x) / camera.focal
    wall = np.where(slope < 0, np.float32(street.walls[0]), np.float32(street.walls[1]))
    # where the ray x = slope * z meets the bending wall x = wall + bend * z**2
    root = np.sqrt(np.maximum(slope * slope - 4 * camera.bend * wall, 1e-6))
    depth = np.clip(2 * wall / (slope + np.sign(slope) * root), 2.0, 150.0)
    rows, columns = np.nonzero(np.asarray(canvas.labels) == Label.BUILDING)
    z = depth[columns]
    y = camera.eye + (np.float32(camera.horizon) - rows.astype(np.float32)) * z / camera.focal
    fine = 1 / (1 + z / 18)
    gain = 1 + 0.035 * noise_at(z * 9 + street.seed, y * 12, SMOOTH) + 0.05 * fine * noise_at(z * 5, y * 13.3, SANDY)
    gain *= 1 - 0.10 * fine * ((y % 0.15) < 0.03) - 0.22 * np.exp(-np.maximum(y, 0) / 0.5)
    gain *= 0.94 + 0.012 * np.clip(y, 0, 9)
    pixels = np.array(canvas.picture)
    pixels[rows, columns] = (pixels[rows, columns] * gain[:, None]).clip(0, 255).astype(np.uint8)
    canvas.load(Image.fromarray(pixels), canvas.labels)
