"""Draws the learned offsets of each AlignFA and of AlignCM as colours: alignseg offsets IMAGE -o OUT.png.

alignseg offsets street.jpg -o offsets.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_export.alignseg import AlignSeg
from model_export.alignseg.align_cm import REGIONS
from model_export.alignseg.align_fa import OffsetGenerator
from model_export.alignseg.sampling import upsample
from model_export.alignseg.slim_decoder import SlimOffsets
from model_export.checkpoints import checkpoint
from model_export.export import DEFAULT_BUCKETS
from service.errors import AlignSegError
from service.imaging.decode import decode_file
from service.imaging.letterbox import letterbox
from service.model_folder import manifest as manifests
from service.types import Size
from training.evaluation.predictors import load_network
from training.figures.offset_fields import OffsetField, colored, draw

Bytes = NDArray[np.uint8]
DEFAULT_MODEL = Path("weights/alignseg-lite")

EPILOG = """\
How to read the figure: the hue of a pixel is the direction in which it samples its feature, the saturation the length
of the offset; full colour is the length above the panel. White pixels have no offset. "high" is the coarse map, "low"
the fine one. The image is resized for the model as by the server; lengths are in pixels of the resized image.

examples:
  alignseg offsets street.jpg -o offsets.png
  alignseg offsets street.jpg -o offsets.png --model runs/camvid/best.safetensors"""


@dataclass
class CapturedOffsets:
    """Outputs of the offset generators: raw offsets (2, H, W) by module name, of SlimOffsets with .high or .low."""

    raw: dict[str, NDArray[np.float32]]


@contextmanager
def capture_offsets(network: AlignSeg) -> Iterator[CapturedOffsets]:
    """Records what each OffsetGenerator and SlimOffsets returns for the first image of a batch, inside the context."""
    captured = CapturedOffsets({})

    def register(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            raw = output[0].detach().float().cpu().numpy()
            if isinstance(module, SlimOffsets):
                captured.raw |= {f"{name}.high": raw[:2], f"{name}.low": raw[2:]}
            else:
                captured.raw[name] = raw

        return network.get_submodule(name).register_forward_hook(hook)

    generators = (OffsetGenerator, SlimOffsets)
    handles = [register(name) for name, module in network.named_modules() if isinstance(module, generators)]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def offset_fields(network: AlignSeg, image: Bytes) -> tuple[Bytes, list[OffsetField]]:
    """The class map of an image, uint8 (H, W), and its offset fields in pixels of this image.

    image: uint8 (H, W, 3) RGB. Raises ValueError when the network has no learned offsets.
    """
    size = (image.shape[0], image.shape[1])
    with torch.inference_mode(), capture_offsets(network.eval()) as captured:
        logits = network(network.normalise(torch.tensor(image)[None]))
        ids: Bytes = upsample(logits, size)[0].argmax(0).to(torch.uint8).numpy()
    if not captured.raw:
        raise ValueError("the network has no offsets: it was trained without AlignFA and AlignCM (--align none)")
    sampling = network.architecture.sampling
    fields = []
    for name, raw in captured.raw.items():
        source = (REGIONS, REGIONS) if name.startswith("align_cm") else (raw.shape[1], raw.shape[2])
        fields.append(OffsetField(name, in_image_pixels(raw, sampling, source, size)))
    return ids, fields


def in_image_pixels(
    raw: NDArray[np.float32], sampling: str, source: tuple[int, int], image_size: tuple[int, int]
) -> NDArray[np.float32]:
    """Convert offsets (2, H, W) as (x, y) from the units of `sampling` (see alignseg/sampling.py) to image pixels.

    source: (h, w) of the map that is sampled. image_size: (height, width).
    """
    pixels = np.empty_like(raw)
    for axis, (steps, cells, extent) in enumerate(zip(raw.shape[:0:-1], source[::-1], image_size[::-1], strict=True)):
        standard = (extent - 1) / max(steps - 1, 1)  # one step of the raster
        pixels[axis] = raw[axis] * (standard if sampling == "standard" else extent / (2 * cells))
    return pixels


def read_image(path: Path) -> Bytes:
    """uint8 (H, W, 3) RGB, as the server reads it. Raises OSError, and RequestError when the file is not an image."""
    return decode_file(path)


def served_buckets(model: Path) -> Sequence[Size]:
    """The (height, width) buckets in which a model folder is served; for a checkpoint, in which it would be exported.

    Raises ManifestError.
    """
    return manifests.load(model).input.buckets if model.is_dir() else DEFAULT_BUCKETS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(
        "alignseg offsets",
        description="Draw the offsets learned by AlignFA and AlignCM for one image, as colours of a colour wheel.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("image", type=Path, metavar="IMAGE", help="an image file of any format that Pillow reads")
    options.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="PNG file to write")
    options.add_argument(
        "--model", type=Path, default=DEFAULT_MODEL, help=f"model folder or checkpoint (default: {DEFAULT_MODEL})"
    )
    return options


def main(argv: list[str] | None = None) -> int:
    """Draw. Exit status: 0, or 2 when nothing could be drawn."""
    arguments = parser().parse_args(argv)
    try:
        image = read_image(arguments.image)
        network = load_network(arguments.model)
        # As in serving: at the size of a photograph the network would see objects many times as large as in training.
        prepared = letterbox(image, served_buckets(arguments.model))
        ids, fields = offset_fields(network, prepared.pixels)
        height, width = prepared.content
        class_map = colored(ids[:height, :width], network.architecture.num_classes)
        draw(prepared.pixels[:height, :width], class_map, fields, arguments.out, prepared.bucket)
    except (OSError, ValueError, checkpoint.CheckpointError, AlignSegError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
