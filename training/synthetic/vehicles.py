"""Cars, vans and buses as small meshes: a body, a cabin, wheels, glass and lamps."""

from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi, sin

from training.synthetic.canvas import Canvas, Color, Label, Point, mix, normal_of

PAINT: tuple[Color, ...] = (
    (176, 180, 184), (44, 46, 50), (164, 34, 36), (42, 70, 128), (226, 226, 222),
    (62, 92, 78), (112, 116, 122), (84, 128, 158), (196, 150, 60),
)  # fmt: skip
GLASS: Color = (40, 50, 60)
# the hull's right outline: shares of the half width and of the height
SECTION = ((0.9, 0.0), (0.97, 0.16), (1.0, 0.42), (0.995, 0.66), (0.965, 0.86), (0.9, 1.0))
# arch, tyre, rim, hub: radius in metres, how far out as a share of the half width, colour
WHEEL: tuple[tuple[float, float, Color], ...] = (
    (0.37, 0.985, (22, 22, 23)), (0.32, 1.0, (30, 30, 32)), (0.2, 1.01, (150, 152, 156)), (0.07, 1.02, (90, 92, 96)),
)  # fmt: skip
Quad = tuple[Point, Point, Point, Point]


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions in metres; belt: where the windows begin, nose: the bonnet's front edge.

    cabin: where its four corners stand, as shares of the length from the rear.
    """

    length: float
    width: float
    belt: float
    height: float
    cabin: tuple[float, float, float, float]
    nose: float


SHAPES = {
    "hatch": Shape(3.9, 1.72, 0.95, 1.48, (0.02, 0.13, 0.58, 0.78), 0.76),
    "saloon": Shape(4.5, 1.78, 0.93, 1.42, (0.13, 0.27, 0.56, 0.74), 0.74),
    "estate": Shape(4.6, 1.84, 1.05, 1.70, (0.01, 0.06, 0.60, 0.74), 0.88),
    "van": Shape(5.0, 1.96, 1.22, 2.25, (0.0, 0.01, 0.72, 0.88), 1.0),
    "bus": Shape(9.5, 2.5, 1.35, 3.6, (0.0, 0.0, 0.985, 1.0), 1.3),
}


class Vehicle:
    """One vehicle whose rear stands at depth z (its front, when oncoming), centred on x."""

    def __init__(self, canvas: Canvas, kind: str, paint: Color, x: float, z: float, oncoming: bool) -> None:
        self.canvas, self.shape, self.paint, self.x, self.z, self.oncoming = canvas, SHAPES[kind], paint, x, z, oncoming
        self.near = z < 40  # farther away, details are smaller than pixels
        self.lit = canvas.sunlight(x, z - 0.3)
        self.centre = (x, self.shape.height * 0.4, z + self.shape.length / 2)

    def cast(self) -> None:
        """Draw the shadow on the ground, and the dark area under the floor."""
        to, s = self.canvas.light.towards, self.shape
        half, high = s.width / 2, s.height * 0.85
        dx, dz = -to[0] / to[1] * high, -to[2] / to[1] * high
        foot = [(self.x + a * half, 0.0, self.z + b * s.length) for a, b in ((-1, 0), (1, 0), (1, 1), (-1, 1))]
        for (ax, _, az), (bx, _, bz) in zip(foot, [*foot[1:], foot[0]], strict=True):
            self.canvas.darken([(ax, 0, az), (bx, 0, bz), (bx + dx, 0, bz + dz), (ax + dx, 0, az + dz)], 0.95)

    def draw(self) -> None:
        """Draw the visible faces, farthest first: body, cabin, then lamps, plates and wheels."""
        self._underside()
        for faces in (self._body(), self._cabin()):
            visible = [face for face in faces if self._visible(face[0])]
            for quad, trim in sorted(visible, key=lambda face: -_distance(face[0])):
                self._quad(quad, self.paint, gloss=True)
                if trim:
                    self._glass(quad, trim)
        if abs(self.x) > self.shape.width / 2:
            self._wheels(1 if self.x < 0 else -1)
        self._lamps()

    def _at(self, x: float, y: float, along: float) -> Point:
        """World coordinates of a point of the vehicle; along: 0 (rear) to 1 (front)."""
        along = 1 - along if self.oncoming else along
        return self.x + x, y, self.z + along * self.shape.length

    def _visible(self, quad: Quad) -> bool:
        nx, ny, nz = normal_of(quad, self.centre)
        x, y, z = quad[0]
        bent = self.canvas.camera.bend * z * z
        return nx * (x + bent) + ny * (y - self.canvas.camera.eye) + nz * z < 0

    def _quad(self, quad: Quad, color: Color, gloss: bool = False) -> None:
        normal = normal_of(quad, self.centre)
        depth = max(1.2, sum(point[2] for point in quad) / 4)
        if gloss:  # paint mirrors the sky above and the dark street below
            up = normal[1]
            color = mix(color, (214, 226, 240), 0.42 * up) if up > 0 else mix(color, (40, 40, 42), -0.5 * up)
        shaded = self.canvas.light.shade(color, normal, depth, self.lit)
        self.canvas.fill(self.canvas.camera.outline(quad), shaded, Label.CAR)

    def _body(self) -> list[tuple[Quad, str]]:
        """The hull below the windows: rings of twelve points, joined into quads, and two end faces."""
        stations = (0.0, 0.008, 0.025, 0.05, 0.1, 0.3, 0.5, 0.7, 0.78, 0.86, 0.92, 0.96, 0.985, 1.0)
        rings = [self._ring(along) for along in (stations if self.near else (0.0, 0.03, 0.1, 0.75, 0.9, 1.0))]
        faces: list[tuple[Quad, str]] = []
        for rear, front in pairwise(rings):
            faces.extend(((rear[a], rear[a + 1], front[a + 1], front[a]), "") for a in range(11))
        for a in range(5):
            faces.extend(((ring[a], ring[a + 1], ring[10 - a], ring[11 - a]), "") for ring in (rings[0], rings[-1]))
        return faces

    def _ring(self, along: float) -> list[Point]:
        """Twelve points of the hull's outline across the vehicle, from the right sill over the top to the left."""
        s, end = self.shape, min(along, 1 - along)
        half = s.width / 2 * (0.84 + 0.16 * min(1.0, end / 0.09) ** 0.5)
        bonnet = max(0.0, (along - s.cabin[3]) / (1.001 - s.cabin[3]))
        top = s.belt + (s.nose - s.belt) * bonnet**1.4
        top -= 0.13 * max(0.0, 1 - end / 0.035) ** 1.5
        low = 0.2 + 0.08 * max(0.0, 1 - end / 0.06)
        right = [(half * part, low + (top - low) * rise) for part, rise in SECTION]
        return [self._at(x, y, along) for x, y in [*right, *((-x, y) for x, y in reversed(right))]]

    def _cabin(self) -> list[tuple[Quad, str]]:
        """Three rings, of the belt, above the glass and of the roof, joined by eight faces, and the roof itself."""
        s = self.shape
        base, roof = 0.455 * s.width, (0.46 if s.height > 3 else 0.385) * s.width
        a, b, c, d = s.cabin
        tall = s.height - s.belt
        belt = self._loop(base, s.belt, a, d)
        brow = self._loop(base + 0.88 * (roof - base), s.belt + 0.88 * tall, a + 0.88 * (b - a), d + 0.88 * (c - d))
        top = self._loop(roof * 0.86, s.height, b + 0.015, c - 0.015)
        faces: list[tuple[Quad, str]] = [((top[0], top[1], top[2], top[3]), "")]
        for n, trim in enumerate(("rear", "side", "windscreen", "side")):
            m = (n + 1) % 4
            faces.append(((belt[n], belt[m], brow[m], brow[n]), trim))
            faces.append(((brow[n], brow[m], top[m], top[n]), ""))
        return faces

    def _loop(self, half: float, y: float, rear: float, front: float) -> Quad:
        return self._at(-half, y, rear), self._at(half, y, rear), self._at(half, y, front), self._at(-half, y, front)

    def _glass(self, quad: Quad, trim: str) -> None:
        """Panes inside a cabin face, the upper part brighter where it mirrors the sky."""
        low = 0.42 if trim != "side" and self.shape.height > 2 else 0.07
        for start, end in self._spans(trim):
            self._quad(_inset(quad, start - 0.012, end + 0.012, low - 0.03, 0.98), (24, 26, 28))
            steps = 4 if self.near else 1
            for step in range(steps):
                bottom, top = (low + (0.96 - low) * (step + up) / steps for up in (0, 1))
                self._quad(
                    _inset(quad, start, end, bottom, top), mix(GLASS, (176, 196, 212), 0.1 + 0.52 * step / steps)
                )
            if self.near and trim != "side":  # the headrests of those inside
                for seat in (0.3, 0.7):
                    self._quad(
                        _inset(quad, seat - 0.07, seat + 0.07, low, low + 0.4 * (1 - low)),
                        mix(GLASS, (10, 12, 14), 0.5),
                    )

    def _spans(self, trim: str) -> tuple[tuple[float, float], ...]:
        """Where panes begin and end, as shares of a face's width."""
        if trim != "side":
            return ((0.07, 0.93),)
        if self.shape.height > 3:
            return tuple((0.02 + 0.14 * n, 0.14 + 0.14 * n) for n in range(7))
        return ((0.7, 0.92),) if self.shape is SHAPES["van"] else ((0.07, 0.47), (0.53, 0.92))

    def _underside(self) -> None:
        """The dark area under the floor (labelled as road), the sill and the tyres."""
        half, x, near, far = self.shape.width / 2 * 0.9, self.x, self.z + 0.1, self.z + self.shape.length - 0.1
        floor: list[Point] = [(x - half, 0, near), (x + half, 0, near), (x + half, 0, far), (x - half, 0, far)]
        self._flat(floor, (44, 44, 46), Label.ROAD)
        near += 0.25
        self._flat(
            [(x - half, 0.15, near), (x + half, 0.15, near), (x + half, 0.34, near), (x - half, 0.34, near)],
            (28, 28, 30),
        )
        for side in (-1, 1):
            a, b = x + side * half * 0.98, x + side * (half - 0.2)
            self._flat(
                [(a, 0, near + 0.1), (b, 0, near + 0.1), (b, 0.34, near + 0.1), (a, 0.34, near + 0.1)], (18, 18, 19)
            )

    def _flat(self, points: list[Point], color: Color, label: Label = Label.CAR) -> None:
        shaded = self.canvas.light.shade(color, (0, 0, 0), max(1.2, points[0][2]), 0)
        self.canvas.fill(self.canvas.camera.outline(points), shaded, label)

    def _lamps(self) -> None:
        """Lamps, bumper and plate; a grille in front."""
        s, end = self.shape, 1.004 if self.oncoming else -0.004
        half, top = s.width / 2 * 0.85, (s.nose if self.oncoming else s.belt) - 0.16
        lamp: Color = (240, 240, 226) if self.oncoming else (186, 22, 24)
        self._patch(-half, half, 0.36, 0.48, end, mix(self.paint, (40, 40, 42), 0.6))
        if self.oncoming:
            self._patch(-0.42, 0.42, 0.5, top - 0.04, end, (26, 27, 30))
        for side in (-1, 1):
            inner, outer = side * (half - (0.34 if self.oncoming else 0.26)), side * half
            self._patch(min(inner, outer), max(inner, outer), top - 0.2, top, end, lamp)
            self._patch(
                min(inner, outer) + 0.05,
                max(inner, outer) - 0.05,
                top - 0.15,
                top - 0.06,
                end,
                mix(lamp, (255, 236, 220), 0.35),
            )
        self._patch(-0.26, 0.26, 0.5, 0.61, end, (228, 228, 220) if self.oncoming else (226, 190, 60))
        for stroke in range(6):
            self._patch(-0.21 + 0.075 * stroke, -0.17 + 0.075 * stroke, 0.525, 0.585, end, (40, 40, 40))

    def _patch(self, left: float, right: float, low: float, high: float, along: float, color: Color) -> None:
        quad = (
            self._at(left, low, along),
            self._at(right, low, along),
            self._at(right, high, along),
            self._at(left, high, along),
        )
        self._quad(quad, color)

    def _wheels(self, side: int) -> None:
        for along in (0.85 / self.shape.length, 1 - 0.85 / self.shape.length):
            for radius, out, color in WHEEL:
                self._disc(side * out * self.shape.width / 2, along, radius, color)

    def _disc(self, x: float, along: float, radius: float, color: Color) -> None:
        spot, size = self.shape.length, 1.3 if self.shape.height > 3 else 1.0
        ring = [
            self._at(
                x, 0.32 * size + size * radius * sin(turn * pi / 9), along + size * radius * cos(turn * pi / 9) / spot
            )
            for turn in range(18)
        ]
        shaded = self.canvas.light.shade(color, (1.0 if x > 0 else -1.0, 0.0, 0.0), max(1.2, self.z), self.lit)
        self.canvas.fill(self.canvas.camera.outline(ring), shaded, Label.CAR)


def _inset(quad: Quad, start: float, end: float, low: float, high: float) -> Quad:
    """The part of a face between two shares of its width and of its height; the first edge is the lower one."""
    a, b, c, d = quad

    def at(u: float, v: float) -> Point:
        return mix(mix(a, b, u), mix(d, c, u), v)

    return at(start, low), at(end, low), at(end, high), at(start, high)


def _distance(quad: Quad) -> float:
    x, y, z = (sum(point[axis] for point in quad) / 4 for axis in range(3))
    return x * x + (y - 1.5) ** 2 + z * z
