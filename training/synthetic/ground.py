"""Backgrounds computed per pixel: the sky with clouds, the ground with road markings."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.synthetic.canvas import SANDY, SMOOTH, Camera, Canvas, Color, Field, Label, Light, noise_at, ramp

WHITE_PAINT = (222.0, 222.0, 214.0)
YELLOW_PAINT = (214.0, 178.0, 82.0)


@dataclass(frozen=True, slots=True)
class Street:
    """Dimensions of a street in metres; the camera drives on the left at x = 0.

    left, right: the kerbs. middle: the line between the lanes. walls: x of the facades. end: depth of the last one.
    """

    left: float
    right: float
    middle: float
    walls: tuple[float, float]
    end: float
    zebra: float | None
    seed: float

    def kerb(self, side: int) -> float:
        """X of the kerb on side -1 (left) or +1 (right)."""
        return self.left if side < 0 else self.right

    def wall(self, side: int) -> float:
        """X of the facades on side -1 (left) or +1 (right)."""
        return self.walls[0] if side < 0 else self.walls[1]


def background(canvas: Canvas, street: Street, cover: float, zenith: Color) -> None:
    """Draw sky and ground. cover: share of the sky with clouds, 0..1."""
    camera = canvas.camera
    first = int(camera.horizon)
    pixels = np.zeros((camera.height, camera.width, 3), np.float32)
    labels = np.zeros((camera.height, camera.width), np.uint8)
    pixels[:first] = _sky(camera, canvas.light, street.seed, cover, zenith)
    pixels[first:], labels[first:] = _ground(canvas, street, first)
    canvas.load(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), Image.fromarray(labels))


def _sky(camera: Camera, light: Light, seed: float, cover: float, zenith: Color) -> Field:
    """(horizon, W, 3) float32. Computed at a quarter of the resolution, which is enough for clouds."""
    width, height = camera.width // 4, int(camera.horizon) // 4
    rise = np.linspace(1.0, 0.0, height, dtype=np.float32)[:, None]
    across = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    far = 1.0 / (rise + 0.22)
    coarse, fine = (noise_at(across * far * size + 9 * seed, far * size * 1.5 + seed, SMOOTH) for size in (90, 260))
    thick = 0.9 * coarse + 0.3 * fine
    fade = 0.3 + 0.7 * rise[..., None] ** 0.5
    cloud = fade * ramp(thick, 1.3 - 2.6 * cover, 2.1 - 2.6 * cover)[..., None]
    blue = _blend(np.array(light.haze, np.float32), np.array(zenith, np.float32), rise[..., None] ** 0.75)
    lit = 232 + 20 * ramp(thick, 2.6, 0.2)[..., None] - 34 * cover * rise[..., None]
    sky = _blend(np.broadcast_to(blue, (height, width, 3)), lit * np.array([1.0, 0.995, 0.985], np.float32), cloud)
    small = Image.fromarray(sky.clip(0, 255).astype(np.uint8))
    large = small.resize((camera.width, int(camera.horizon)), Image.Resampling.BICUBIC)
    return np.asarray(large, np.float32)


def _ground(canvas: Canvas, street: Street, first: int) -> tuple[Field, npt.NDArray[np.uint8]]:
    """(rows, W, 3) float32 and (rows, W) uint8 of every row below the horizon."""
    camera, light = canvas.camera, canvas.light
    rows = np.arange(first, camera.height, dtype=np.float32)[:, None] + 0.5
    z = camera.eye * camera.focal / np.maximum(rows - camera.horizon, 0.4)
    columns = np.arange(camera.width, dtype=np.float32)[None, :] + 0.5
    x = (columns - camera.centre_x) * z / camera.focal - camera.bend * z * z
    road = (x > street.left) & (x < street.right)
    z_all = np.broadcast_to(z, x.shape)
    albedo = np.empty((*x.shape, 3), np.float32)
    albedo[road], albedo[~road] = _asphalt(street, x[road], z_all[road]), _paving(street, x[~road], z_all[~road])
    shadow = np.asarray(canvas.shadow, np.float32)[first:, :, None] / 255
    shine = np.array(light.ambient, np.float32) + np.array(light.sun, np.float32) * light.towards[1] * (1 - shadow)
    clear = np.exp(-light.density * z)[..., None]
    pixels = albedo * shine * clear + np.array(light.haze, np.float32) * (1 - clear)
    return pixels, np.where(road, Label.ROAD, Label.PAVEMENT).astype(np.uint8)


def _asphalt(street: Street, x: Field, z: Field) -> Field:
    """Grey with stains, worn wheel tracks, repairs and paint."""
    fine = 1.0 / (1.0 + z / 14)
    stains = noise_at(x * 14 + street.seed, z * 7 + street.seed, SMOOTH)
    grain = noise_at(x * 110 + street.seed, z * 60, SANDY)
    grey = 106 + 6.5 * stains + 9 * grain * fine
    for lane in (0.0, 2 * street.middle):
        for wheel in (-0.78, 0.78):
            grey -= 7 * np.exp(-(((x - lane - wheel) / 0.3) ** 2))
    repair = (np.abs(x - 0.9) < 0.8) & (np.abs(z - 9.5 - street.seed % 7) < 2.2)
    grey -= 13 * repair + 22 * (np.hypot(x + 0.35, z - 7.5 - street.seed % 3) < 0.33)
    grey -= 16 * (ramp(x, street.left + 0.5, street.left) + ramp(x, street.right - 0.5, street.right))
    color: Field = grey[..., None] * np.array([1.0, 0.995, 0.985], np.float32)
    worn = ramp(stains + 0.5 * grain, -3.2, -0.6)[..., None]
    white, yellow = _white_lines(street, x, z)[..., None], _yellow_lines(street, x)[..., None]
    color = _blend(color, np.array(WHITE_PAINT, np.float32), 0.9 * white * worn)
    return _blend(color, np.array(YELLOW_PAINT, np.float32), 0.75 * yellow * worn)


def _white_lines(street: Street, x: Field, z: Field) -> Field:
    along = (z + street.seed) % 6.0
    lines: npt.NDArray[np.bool_] = (np.abs(x - street.middle) < 0.075) & (along < 3.2)
    if street.zebra is not None:
        lines &= np.abs(z - street.zebra) > 3.5
        lines |= (np.abs(z - street.zebra) < 1.5) & (((x - street.left) % 1.2) < 0.62)
        lines |= (np.abs(z - street.zebra + 3.0) < 0.14) & (x < street.middle)
    return lines.astype(np.float32)


def _yellow_lines(street: Street, x: Field) -> Field:
    from_kerb: Field = np.minimum(x - street.left, street.right - x)
    lines: npt.NDArray[np.bool_] = (np.abs(from_kerb - 0.26) < 0.05) | (np.abs(from_kerb - 0.46) < 0.05)
    return lines.astype(np.float32)


def _paving(street: Street, x: Field, z: Field) -> Field:
    """Slabs with joints that fade before they alias, and a bright kerb with a dark foot."""
    fine = ramp(z, 26.0, 6.0)
    slab = noise_at(np.floor(x / 0.6) * 7 + street.seed, np.floor(z / 0.75 + np.floor(x / 0.6) * 0.5) * 5, SANDY)
    joint = np.maximum((x % 0.6) < 0.035, ((z / 0.75 + np.floor(x / 0.6) * 0.5) % 1.0) < 0.06)
    grey = 148 + 7 * slab * fine + 6 * noise_at(x * 16 + street.seed, z * 10, SMOOTH) - 34 * joint * fine
    grey += 4 * noise_at(x * 90, z * 60 + street.seed, SANDY) * fine
    out = np.maximum(street.left - x, x - street.right)
    grey = np.where(out < 0.32, 172 - 30 * fine * ((z % 1.0) < 0.05), grey)
    grey = np.where(out < 0.12, 104 - 20 * fine * ((z % 1.0) < 0.05), grey)
    wall = np.minimum(np.abs(x - street.walls[0]), np.abs(x - street.walls[1]))
    grey = grey * (1 - 0.35 * np.exp(-wall / 0.5))
    color: Field = grey[..., None] * np.array([1.0, 0.975, 0.935], np.float32)
    return color


def _blend(under: Field, over: Field, share: Field) -> Field:
    return (under + (over - under) * share).astype(np.float32)
