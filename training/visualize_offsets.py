"""Shows what AlignSeg has learned: the offsets of each AlignFA and of AlignCM, as colours beside the picture.

alignseg offsets street.jpg -o offsets.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn

from model_export.alignseg import AlignSeg
from model_export.alignseg.align_cm import REGIONS
from model_export.alignseg.align_fa import OffsetGenerator
from model_export.alignseg.sampling import upsample
from model_export.checkpoints import checkpoint
from service.errors import AlignSegError
from training.evaluation.predictors import load_network
from training.figures.offset_fields import Field, draw, painted

Bytes = NDArray[np.uint8]
DEFAULT = Path("weights/alignseg-lite")

EPILOG = """\
Reading the figure: the colour of a pixel is the direction in which it reads its feature, full colour the length written
over the panel, in pixels of the picture; white pixels read in place. "high" is the coarse map, "low" the fine one.

examples:
  alignseg offsets street.jpg -o offsets.png
  alignseg offsets street.jpg -o offsets.png --model runs/camvid/best.safetensors"""


@dataclass
class Capture:
    """What the generators of a network said while `capturing`: raw offsets (2, H, W) by module name."""

    raw: dict[str, NDArray[np.float32]]


@contextmanager
def capturing(network: AlignSeg) -> Iterator[Capture]:
    """Keeps what each OffsetGenerator returns for the first picture of a batch."""
    capture = Capture({})

    def keep(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            capture.raw[name] = output[0].detach().float().cpu().numpy()

        return network.get_submodule(name).register_forward_hook(hook)

    handles = [keep(name) for name, module in network.named_modules() if isinstance(module, OffsetGenerator)]
    try:
        yield capture
    finally:
        for handle in handles:
            handle.remove()


def fields(network: AlignSeg, picture: Bytes) -> tuple[Bytes, list[Field]]:
    """picture: uint8 (H, W, 3) RGB. Returns its class map, uint8 (H, W), and the offset fields in picture pixels.

    Raises ValueError when the network was built without learned offsets.
    """
    size = (picture.shape[0], picture.shape[1])
    with torch.inference_mode(), capturing(network.eval()) as capture:
        logits = network(network.normalise(torch.tensor(picture)[None]))
        ids: Bytes = upsample(logits, size)[0].argmax(0).to(torch.uint8).numpy()
    if not capture.raw:
        raise ValueError("this network was built without AlignFA and AlignCM: it has no offsets to show")
    sampling = network.architecture.sampling
    found = []
    for name, raw in capture.raw.items():
        source = (REGIONS, REGIONS) if name.startswith("align_cm") else (raw.shape[1], raw.shape[2])
        found.append(Field(name, in_picture_pixels(raw, sampling, source, size)))
    return ids, found


def in_picture_pixels(
    raw: NDArray[np.float32], sampling: str, source: tuple[int, int], picture: tuple[int, int]
) -> NDArray[np.float32]:
    """Offsets (2, H, W) as (x, y) in the units of `sampling` (see alignseg/sampling.py) in pixels of the picture.

    source: (h, w) of the map that is sampled. picture: its (height, width).
    """
    pixels = np.empty_like(raw)
    for axis, (steps, cells, extent) in enumerate(zip(raw.shape[:0:-1], source[::-1], picture[::-1], strict=True)):
        standard = (extent - 1) / max(steps - 1, 1)  # one step of the raster
        pixels[axis] = raw[axis] * (standard if sampling == "standard" else extent / (2 * cells))
    return pixels


def read_picture(path: Path) -> Bytes:
    """uint8 (H, W, 3) RGB, upright. Raises OSError that names the file when it is no picture."""
    with Image.open(path) as opened:
        return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        "alignseg offsets",
        description="Draw the offsets that AlignFA and AlignCM have learned, for one picture, as colour-wheel images.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("picture", type=Path, metavar="PICTURE", help="any picture Pillow reads")
    made.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="the PNG to write")
    made.add_argument(
        "--model", type=Path, default=DEFAULT, help=f"a model folder or a checkpoint (default: {DEFAULT})"
    )
    return made


def main(argv: list[str] | None = None) -> int:
    """Draw; the exit status is 0, or 2 when nothing could be drawn."""
    arguments = parser().parse_args(argv)
    try:
        picture = read_picture(arguments.picture)
        network = load_network(arguments.model)
        ids, found = fields(network, picture)
        draw(picture, painted(ids, network.architecture.num_classes), found, arguments.out)
    except (OSError, ValueError, checkpoint.CheckpointError, AlignSegError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
