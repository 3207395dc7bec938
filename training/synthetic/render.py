"""Renders a street scene: an image and its exact labels, as a function of a seed.

    python -m training.synthetic OUT.png [--seed N] [--size 480x360] [--labels LABELS.png]

It shows all eleven CamVid classes from a dashboard camera, so that demos and tests need no photographs.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.types import parse_size
from training.synthetic.buildings import House, texture_walls
from training.synthetic.canvas import Camera, Canvas, Color, Light
from training.synthetic.ground import Street, background
from training.synthetic.people_and_trees import cast, crown, cyclist, pedestrian, shade_of_tree, tree
from training.synthetic.street_furniture import boards, bollard, lamp_post, railing, sign, traffic_light
from training.synthetic.vehicles import PAINT, SHAPES, Vehicle

DEMO_SEED = 67
SUPERSAMPLING = 2  # the image is drawn this much larger and averaged; the labels are sampled
LEAVES: tuple[Color, ...] = ((92, 122, 52), (110, 132, 58), (76, 108, 56), (138, 126, 66), (84, 116, 70))

UInt8Array = npt.NDArray[np.uint8]
Item = tuple[float, Callable[[], None]]


def render(seed: int, size: tuple[int, int] = (360, 480)) -> tuple[UInt8Array, UInt8Array]:
    """Render the scene of a seed.

    size: (H, W). Returns (H, W, 3) uint8 RGB and (H, W) uint8 of CamVid ids in [0, 10]; no pixel is void.
    """
    rng = np.random.default_rng(seed)
    canvas, street = Canvas(_camera(rng, size), _light(rng)), _street(rng)
    lots, items = _lots(canvas, rng, street), _items(canvas, rng, street)
    canvas.soften()
    background(canvas, street, float(rng.uniform(0.25, 0.75)), _zenith(rng))
    for _, draw in sorted(lots, key=_depth, reverse=True):
        draw()
    texture_walls(canvas, street)
    for _, draw in sorted(items, key=_depth, reverse=True):
        draw()
    return _develop(canvas, rng, size)


def _depth(item: Item) -> float:
    return item[0]


def _camera(rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    height, width = size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING
    centre, horizon, focal = rng.uniform((0.44, 0.46, 0.78), (0.56, 0.52, 1.0))
    return Camera(
        width, height, focal * width, centre * width, horizon * height, 1.5, float(rng.uniform(-1, 1)) * 1.3e-3
    )


def _light(rng: np.random.Generator) -> Light:
    """From an overcast day to a low sun behind the camera."""
    sunny = float(rng.uniform(0.25, 1.0))
    side = float(rng.choice((-1.0, 1.0)))
    towards = np.array([side * rng.uniform(0.35, 0.7), rng.uniform(0.6, 0.95), -rng.uniform(0.3, 0.6)])
    x, y, z = (towards / np.linalg.norm(towards)).tolist()
    warm, base = float(rng.uniform(0.75, 1.0)), 0.84 - 0.25 * sunny
    sun = (0.98 * sunny, 0.93 * sunny * (0.92 + 0.08 * warm), 0.87 * sunny * warm)
    return Light(
        (x, y, z), sun, (base * 0.95, base, base * 1.08), (208.0, 217.0, 226.0), float(rng.uniform(0.004, 0.009))
    )


def _zenith(rng: np.random.Generator) -> Color:
    red = float(rng.uniform(84, 140))
    return red, red + 50, min(236.0, red + 112)


def _street(rng: np.random.Generator) -> Street:
    middle = float(rng.uniform(1.5, 1.8))
    left, right = -middle - float(rng.choice((0.3, 2.2))), middle * 3 + float(rng.choice((0.3, 2.2)))
    walls = (left - float(rng.uniform(2.4, 4.2)), right + float(rng.uniform(2.4, 4.2)))
    zebra = float(rng.uniform(13, 30)) if rng.random() < 0.3 else None
    return Street(left, right, middle, walls, 120.0, zebra, float(rng.integers(400)))


def _lots(canvas: Canvas, rng: np.random.Generator, street: Street) -> list[Item]:
    """Houses and gardens on both sides, and trees at the end of the street."""
    lots: list[Item] = [(street.end + 40 - n, _later(_vista, canvas, rng, street, n)) for n in range(7)]
    for side in (-1, 1):
        z = float(rng.uniform(-30, -24))
        while z < street.end:
            far = z + float(rng.uniform(7, 15))
            if rng.random() < 0.22 and far > 6:
                lots.append((far, _later(_garden, canvas, rng, street, side, max(z, 2.0), far)))
            else:
                house = House(canvas, rng, street, side, z, far)
                house.cast()
                if far > 1.5:
                    lots.append((far, house.draw))
            z = far
    return lots


def _vista(canvas: Canvas, rng: np.random.Generator, street: Street, number: int) -> None:
    x = street.walls[0] + (street.walls[1] - street.walls[0]) * (number * 3 % 7) / 6
    crown(
        canvas, rng, (x, 3.0, street.end + 40 - number), (6.0, float(rng.uniform(4, 8))), LEAVES[number % len(LEAVES)]
    )


def _garden(canvas: Canvas, rng: np.random.Generator, street: Street, side: int, near: float, far: float) -> None:
    """A hedge and a tree behind a fence."""
    wall, leaf = street.wall(side), LEAVES[int(rng.integers(len(LEAVES)))]
    for z in np.arange(far - 1.0, max(near, 6.0), -2.2):
        crown(canvas, rng, (wall + 1.9 * side, 1.0, float(z)), (1.7, 1.5), leaf)
    if far > 12:
        tree(canvas, rng, (wall + 4.2 * side, float(rng.uniform(2.2, 3.4)), max(8.0, (near + far) / 2)), leaf)
    if rng.random() < 0.5:
        boards(canvas, wall, near, far, (150, 116, 84))
    else:
        railing(canvas, wall, near, far, 1.4, (40, 44, 46))


def _items(canvas: Canvas, rng: np.random.Generator, street: Street) -> list[Item]:
    """Objects between the facades. Shadows are cast at once; the objects are drawn later, from far to near."""
    return [
        *_traffic(canvas, rng, street), *_parked(canvas, rng, street),
        *_walkers(canvas, rng, street), *_kerbside(canvas, rng, street),
    ]  # fmt: skip


def _vehicle(canvas: Canvas, rng: np.random.Generator, kind: str, x: float, z: float, oncoming: bool) -> Item:
    paint = (168.0, 32.0, 34.0) if kind == "bus" else PAINT[int(rng.integers(len(PAINT)))]
    Vehicle(canvas, kind, paint, x, z, oncoming).cast()
    return z, lambda: Vehicle(
        canvas, kind, paint, x, z, oncoming
    ).draw()  # a new object: it reads the shadows, which are complete only now


def _traffic(canvas: Canvas, rng: np.random.Generator, street: Street) -> list[Item]:
    items: list[Item] = []
    for centre, oncoming in ((0.0, False), (2 * street.middle, True)):
        z = float(rng.uniform(11, 22))
        while z < 90:
            kind = str(rng.choice(list(SHAPES), p=(0.32, 0.27, 0.2, 0.12, 0.09)))
            items.append(_vehicle(canvas, rng, kind, centre + float(rng.uniform(-0.2, 0.2)), z, oncoming))
            z += SHAPES[kind].length + float(rng.uniform(4, 24))
    return items


def _parked(canvas: Canvas, rng: np.random.Generator, street: Street) -> list[Item]:
    """Cars parked at the kerb, where a lane is wide enough."""
    items: list[Item] = []
    for side in (-1, 1):
        has_space = abs(street.kerb(side) - (0 if side < 0 else 2 * street.middle)) > 3
        z = float(rng.uniform(4, 9))
        while has_space and z < 80:
            kind = str(rng.choice(("hatch", "saloon", "estate", "van"), p=(0.4, 0.3, 0.22, 0.08)))
            if rng.random() < 0.75:
                items.append(_vehicle(canvas, rng, kind, street.kerb(side) - side * 1.12, z, side > 0))
            z += SHAPES[kind].length + float(rng.uniform(0.9, 2.4))
    return items


def _walkers(canvas: Canvas, rng: np.random.Generator, street: Street) -> list[Item]:
    items: list[Item] = []
    for _ in range(int(rng.integers(5, 12))):
        side, z = (-1 if rng.random() < 0.5 else 1), float(rng.uniform(8, 45))
        kerb, wall = street.kerb(side), street.wall(side)
        x = kerb + (wall - kerb) * float(rng.uniform(0.4, 0.85))
        cast(canvas, x, z, 1.7, 0.2)
        items.append((z, _later(pedestrian, canvas, rng, x, z)))
    x, z = -1.25 - float(rng.uniform(0.0, 0.15)), float(rng.uniform(7.5, 14))
    cast(canvas, x, z, 1.7, 0.2)
    return [*items, (z, _later(cyclist, canvas, rng, x, z))]


def _kerbside(canvas: Canvas, rng: np.random.Generator, street: Street) -> list[Item]:
    items: list[Item] = []
    for side in (-1, 1):
        x, leaf = street.kerb(side) + 0.55 * side, LEAVES[int(rng.integers(len(LEAVES)))]
        for z in np.arange(float(rng.uniform(7, 16)), 90, 21.0).tolist():
            cast(canvas, x, z, 7.4, 0.07)
            items.append((z, _later(lamp_post, canvas, x, z, -side)))
        for z in np.arange(float(rng.uniform(11, 30)), 95, float(rng.uniform(9, 22))).tolist():
            spot = (x + 0.4 * side, float(rng.uniform(1.5, 2.5)), z)
            shade_of_tree(canvas, rng, spot)
            items.append((z, _later(tree, canvas, rng, spot, leaf)))
        items += _signs(canvas, rng, x, side)
    return items


def _signs(canvas: Canvas, rng: np.random.Generator, x: float, side: int) -> list[Item]:
    """Two signs, perhaps a traffic light, and either a railing or bollards."""
    items: list[Item] = []
    for z in rng.uniform(8, 34, 2).tolist():
        cast(canvas, x, z, 2.9, 0.05)
        items.append((z, _later(sign, canvas, x, z, int(rng.integers(4)))))
    if rng.random() < 0.5:
        z = float(rng.uniform(9, 20))
        items.append((z, _later(traffic_light, canvas, x, z, bool(rng.random() < 0.7))))
    near = float(rng.uniform(6, 16))
    if rng.random() < 0.45:
        return [*items, (near, _later(railing, canvas, x - 0.2 * side, near, near + 7.0, 1.05, (128, 134, 136)))]
    posts = [near + 2.2 * n for n in range(5)]
    return [*items, *((z, _later(bollard, canvas, x, z)) for z in posts)]


def _later(draw: Callable[..., None], canvas: Canvas, *rest: object) -> Callable[[], None]:
    return lambda: draw(canvas, *rest)


def _develop(canvas: Canvas, rng: np.random.Generator, size: tuple[int, int]) -> tuple[UInt8Array, UInt8Array]:
    """Downsample by averaging, then add the vignette, contrast and grain of a small camera."""
    height, width = size
    small = np.asarray(canvas.picture.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    rows, columns = (np.linspace(-1, 1, side, dtype=np.float32) for side in size)
    toned = (
        small * (1 - 0.13 * (rows[:, None, None] ** 2 + columns[None, :, None] ** 2)) * float(rng.uniform(1.05, 1.2))
    )
    toned = toned + 0.22 * toned * (1 - toned) * (2 * toned - 1)
    grain = rng.standard_normal((height, width, 1), np.float32) * 0.009 * float(rng.uniform(0.5, 1.5))
    image = ((toned + grain).clip(0, 1) * 255).astype(np.uint8)
    return image, np.asarray(canvas.labels)[::SUPERSAMPLING, ::SUPERSAMPLING].copy()


def main() -> None:
    """Write a scene to files."""
    parser = argparse.ArgumentParser(
        prog="python -m training.synthetic", description="Render a street scene and its labels."
    )
    parser.add_argument("out", type=Path, help="image file to write")
    parser.add_argument("--seed", type=int, default=DEMO_SEED, help=f"seed of the scene (default: {DEMO_SEED})")
    parser.add_argument("--size", default="480x360", help="WIDTHxHEIGHT in pixels (default: 480x360)")
    parser.add_argument("--labels", type=Path, help="PNG file of class ids to write")
    arguments = parser.parse_args()
    width, height = parse_size(arguments.size, "WIDTHxHEIGHT", name="--size")
    image, labels = render(arguments.seed, (height, width))
    Image.fromarray(image).save(arguments.out, quality=92)
    if arguments.labels is not None:
        Image.fromarray(labels).save(arguments.labels)
