"""The figure of `alignseg offsets`: image, class map, colour wheel, and a panel for each offset field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from service.types import Size
from training.data.datasets import DATASETS
from training.figures.flow_colors import flow_to_rgb, wheel

Bytes = NDArray[np.uint8]
COLUMNS = 4
FULL_PERCENTILE = 99  # of a field's lengths, drawn in full colour: a few long vectors would pale all others


@dataclass(frozen=True)
class OffsetField:
    """Offsets of one generator. module: its name in the network. pixels: (2, H, W) as (x, y), in image pixels."""

    module: str
    pixels: NDArray[np.float32]

    @property
    def full(self) -> float:
        """The length drawn in full colour, in image pixels."""
        return float(np.percentile(np.hypot(*self.pixels), FULL_PERCENTILE))

    @property
    def side(self) -> str:
        """Which of AlignFA's two maps it moves: "high" or "low"."""
        return self.module.rpartition(".")[2].removesuffix("_offsets")

    @property
    def title(self) -> str:
        """Such as "AlignFA 2, high: stage 2, 1/8"."""
        module, *rest = self.module.split(".")
        if module == "align_cm":
            return "AlignCM: context of 3x3 regions"
        n, side = int(rest[0]), self.side
        if rest[1] == "offsets":  # of the slim decoder, whose step n brings in the map at 1/2^(n+1)
            coarse = f"decoder map, 1/{2 ** (n + 2)}" if n < 3 else "AlignCM's context, 1/32"
            return f"AlignFA {n}, {side}: {coarse if side == 'high' else f'stage {n}, 1/{2 ** (n + 1)}'}"
        coarse = f"stage {n}, 1/{2 ** (n + 1)}" if n < 5 else "AlignCM's context, 1/32"
        return f"AlignFA {n}, {side}: {coarse if side == 'high' else f'decoder map d{n - 1}, 1/4'}"


def draw(image: Bytes, class_map: Bytes, fields: Sequence[OffsetField], path: Path, extent: Size) -> None:
    """Write the figure as a PNG.

    image, class_map: uint8 (H, W, 3), the latter in class colours. extent: (height, width) that the fields cover, from
    the top left corner: the image and its padding, which is cut off. The first row has image, class map, AlignCM and
    the colour wheel; then follow AlignFA's high maps, then its low ones.
    """
    fields = sorted(fields, key=_order)
    context = [field for field in fields if field.module.startswith("align_cm")]
    aligned = [field for field in fields if field not in context]
    rows = 1 + -(-len(aligned) // COLUMNS)
    ratio = image.shape[0] / image.shape[1]
    figure = Figure(figsize=(4 * COLUMNS, rows * (4 * ratio + 0.55)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    _panel(grid[0], image, "image")
    _panel(grid[1], class_map, "class map")
    _wheel(grid[3])
    for axes, field in zip((grid[2:3] if context else []) + grid[COLUMNS:], [*context, *aligned], strict=False):
        rgb = flow_to_rgb(field.pixels, field.full)
        _panel(axes, rgb, f"{field.title}\nfull colour: {field.full:.1f} px", extent)
        axes.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0))
    figure.savefig(path, dpi=100)


def _order(field: OffsetField) -> tuple[bool, str]:
    """High before low, then by number."""
    return field.side == "low", field.module


def _panel(axes: Any, pixels: Bytes, title: str, size: tuple[int, ...] | None = None) -> None:
    """Draw an image. size: (height, width) to stretch it to, by nearest neighbour: coarse maps look coarse."""
    height, width = size or pixels.shape[:2]
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="nearest")
    axes.set_title(title, fontsize=11)


def colored(ids: Bytes, num_classes: int) -> Bytes:
    """Class ids, uint8 (H, W), in the colours of the data set with that many classes, else in greys; (H, W, 3)."""
    tables = [dataset.classes for dataset in DATASETS.values() if dataset.num_classes == num_classes]
    if not tables:
        return np.repeat(np.linspace(40, 255, num_classes).astype(np.uint8)[ids][..., None], 3, axis=2)
    return np.array([entry.color for entry in tables[0]], np.uint8)[ids]


def _wheel(axes: Any) -> None:
    axes.imshow(wheel(256), extent=(-1, 1, 1, -1))
    axes.set(xlim=(-1.6, 1.6), ylim=(1.25, -1.25))
    axes.set_title("where a pixel samples its feature,\nrelative to the pixel", fontsize=11)
    for x, y, side in ((0, -1.13, "above"), (0, 1.13, "below"), (-1.32, 0, "left"), (1.32, 0, "right")):
        axes.text(x, y, side, ha="center", va="center", fontsize=10)
