"""Shifts the logits of a trained network to maximise mIoU: python -m training.logit_adjustment IN -o OUT --root DATA.

A network trained with cross-entropy predicts the most probable class of each pixel, which maximises pixel accuracy at
the cost of rare classes. A constant added to the logits of each class exchanges one for the other (post-hoc logit
adjustment, Menon et al., ICLR 2021). The constants are found by coordinate ascent on labelled images and added to the
bias of the head's last convolution, which is equivalent since upsampling preserves constants.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint
from training.data.datasets import DATASETS, Dataset, Pair
from training.data.labels import IGNORED
from training.evaluation.confusion import Confusion
from training.evaluation.inference_modes import pad_to_raster, whole_image

STEPS = (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
ROUNDS = 6  # at most; the search ends when no class improves mIoU
STRIDE = 3  # of the pixels on both axes: a ninth of them are enough for mIoU, and fit into memory


@torch.inference_mode()
def labelled_logits(
    network: AlignSeg, dataset: Dataset, pairs: Sequence[Pair], stride: int = STRIDE
) -> tuple[Tensor, Tensor]:
    """Logits of the labelled pixels, (C, P) float32, and their labels, (P,) int64."""
    predict, logits, truth = pad_to_raster(whole_image(network.eval())), [], []
    for pair in track(pairs, "predicting", console=Console(stderr=True), disable=not sys.stderr.isatty()):
        image, labels = (torch.tensor(array) for array in dataset.read(pair))
        labels = labels[::stride, ::stride]
        scores = predict(network.normalise(image[None]))[0, :, ::stride, ::stride]
        logits.append(scores[:, labels != IGNORED])
        truth.append(labels[labels != IGNORED].long())
    return torch.cat(logits, 1), torch.cat(truth)


def miou(logits: Tensor, truth: Tensor) -> float:
    """Mean IoU as defined by Confusion; logits (C, P), truth (P,)."""
    return _miou(logits.argmax(0), truth, len(logits))


def _miou(predicted: Tensor, truth: Tensor, classes: int) -> float:
    confusion = Confusion(classes)
    confusion.counts += torch.bincount(truth * classes + predicted, minlength=classes**2).view(classes, classes).numpy()
    return confusion.miou


def best_shift(logits: Tensor, truth: Tensor) -> Tensor:
    """(C,) float32 of mean 0, by coordinate ascent from 0: mIoU on these pixels does not decrease.

    logits, truth: as of labelled_logits.
    """
    shifted, shift = logits.clone(), torch.zeros(len(logits))
    best = miou(shifted, truth)
    for _ in range(ROUNDS):
        before = best
        for c in range(len(logits)):
            others, second = _without(shifted, c).max(0)
            candidates = {
                step: _miou(torch.where(shifted[c] + step > others, c, second), truth, len(logits)) for step in STEPS
            }
            step = max(candidates, key=lambda s: candidates[s])
            if candidates[step] > best:
                best = candidates[step]
                shifted[c] += step
                shift[c] += step
        if best == before:
            break
    return shift - shift.mean()  # adding the same constant to all classes has no effect


def _without(logits: Tensor, c: int) -> Tensor:
    others = logits.clone()
    others[c] = -torch.inf
    return others


def main(argv: list[str] | None = None) -> int:
    """Write OUT and print the changes. Exit status: 0, or 2 for invalid options or data."""
    arguments = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        network = checkpoint.load(arguments.checkpoint)
        dataset = DATASETS[arguments.data]
        pairs = dataset.pairs(arguments.root, arguments.split)
        logits, truth = labelled_logits(network, dataset, pairs)
    except (ValueError, OSError, checkpoint.CheckpointError) as error:
        Console(stderr=True).print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        return 2
    shift = best_shift(logits, truth)
    before, after = (miou(logits + constant[:, None], truth) for constant in (torch.zeros_like(shift), shift))
    console.print(f"mIoU on {dataset.name} {arguments.split}, every {STRIDE}rd pixel: {before:.4f} -> {after:.4f}")
    console.print(
        ", ".join(f"{name} {constant:+.2f}" for name, constant in zip(dataset.names, shift.tolist(), strict=True))
    )
    _last_convolution(network).bias.data += shift  # type: ignore[union-attr]
    metadata = checkpoint.read_metadata(arguments.checkpoint)
    metadata = {key: value for key, value in metadata.items() if key not in {"format", "architecture", "val_miou"}}
    checkpoint.save(arguments.out, network, metadata=metadata | {"balanced_on": arguments.split})
    return 0


def _last_convolution(network: AlignSeg) -> nn.Conv2d:
    return cast(nn.Conv2d, network.head[-1])


def _parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser("python -m training.logit_adjustment", description=__doc__.split("\n")[0])
    options.add_argument("checkpoint", type=Path, metavar="IN", help="a checkpoint of this project (.safetensors)")
    options.add_argument("--out", "-o", type=Path, required=True, help="checkpoint to write")
    options.add_argument("--data", choices=tuple(DATASETS), default="camvid", help="data set (default: camvid)")
    options.add_argument("--root", type=Path, required=True, help="folder of the data set, in its official layout")
    options.add_argument("--split", default="train", help="images to search on (default: train)")
    return options


if __name__ == "__main__":
    sys.exit(main())
