"""Shifts a trained network's class scores to where mIoU is highest: python -m training.logit_adjustment IN -o OUT.

Trained by cross-entropy, a network gives each pixel its most probable class. That is best for pixel accuracy; classes
that are rare lose by it. A constant added to each class's logits trades one for the other (post-hoc logit adjustment,
Menon et al., ICLR 2021). Here it is found by search on labelled pictures, one class after another, and goes into the
bias of the head's last convolution: upsampling with aligned corners hands a constant on, so the network stays as it is.
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
from training.data.datasets import DATASETS, IGNORED, Dataset, Pair
from training.evaluation.confusion import Confusion
from training.evaluation.inference_modes import on_raster, whole

STEPS = (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
ROUNDS = 6  # at most; it ends when no class gains any more
EVERY = 3  # pixels of both axes: a ninth of them tell mIoU well enough, and fit into memory


@torch.inference_mode()
def seen(network: AlignSeg, dataset: Dataset, pairs: Sequence[Pair], every: int = EVERY) -> tuple[Tensor, Tensor]:
    """What the network says of the labelled pixels: logits, (C, P) float32, and their labels, (P,) int64."""
    look, logits, truth = on_raster(whole(network.eval())), [], []
    for pair in track(pairs, "looking", console=Console(stderr=True), disable=not sys.stderr.isatty()):
        picture, labels = (torch.tensor(array) for array in dataset.read(pair))
        kept = labels[::every, ::every]
        scores = look(network.normalise(picture[None]))[0, :, ::every, ::every]
        logits.append(scores[:, kept != IGNORED])
        truth.append(kept[kept != IGNORED].long())
    return torch.cat(logits, 1), torch.cat(truth)


def miou(logits: Tensor, truth: Tensor) -> float:
    """As metrics.Confusion defines it; logits (C, P), truth (P,)."""
    return _miou(logits.argmax(0), truth, len(logits))


def _miou(predicted: Tensor, truth: Tensor, classes: int) -> float:
    confusion = Confusion(classes)
    confusion.counts += torch.bincount(truth * classes + predicted, minlength=classes**2).view(classes, classes).numpy()
    return confusion.miou


def best_shift(logits: Tensor, truth: Tensor) -> Tensor:
    """(C,) float32, of mean 0: coordinate ascent from 0, so mIoU on these pixels never falls. See `seen`."""
    shifted, shift = logits.clone(), torch.zeros(len(logits))
    best = miou(shifted, truth)
    for _ in range(ROUNDS):
        before = best
        for c in range(len(logits)):
            others, second = _without(shifted, c).max(0)
            tried = {
                step: _miou(torch.where(shifted[c] + step > others, c, second), truth, len(logits)) for step in STEPS
            }
            step = max(tried, key=lambda s: tried[s])
            if tried[step] > best:
                best = tried[step]
                shifted[c] += step
                shift[c] += step
        if best == before:
            break
    return shift - shift.mean()  # the same for all classes changes nothing


def _without(logits: Tensor, c: int) -> Tensor:
    others = logits.clone()
    others[c] = -torch.inf
    return others


def main(argv: list[str] | None = None) -> int:
    """Write OUT and print what changed; the exit status is 0, or 2 for a mistake in the flags or the data."""
    arguments = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        network = checkpoint.load(arguments.checkpoint)
        dataset = DATASETS[arguments.data]
        pairs = dataset.pairs(arguments.root, arguments.split)
        logits, truth = seen(network, dataset, pairs)
    except (ValueError, OSError, checkpoint.CheckpointError) as error:
        Console(stderr=True).print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        return 2
    shift = best_shift(logits, truth)
    before, after = (miou(logits + add[:, None], truth) for add in (torch.zeros_like(shift), shift))
    console.print(f"mIoU on {dataset.name} {arguments.split}, every {EVERY}rd pixel: {before:.4f} -> {after:.4f}")
    console.print(", ".join(f"{name} {add:+.2f}" for name, add in zip(dataset.names, shift.tolist(), strict=True)))
    _last(network).bias.data += shift  # type: ignore[union-attr]
    facts = checkpoint.read_metadata(arguments.checkpoint)
    facts = {key: value for key, value in facts.items() if key not in {"format", "architecture", "val_miou"}}
    checkpoint.save(arguments.out, network, metadata=facts | {"balanced_on": arguments.split})
    return 0


def _last(network: AlignSeg) -> nn.Conv2d:
    return cast(nn.Conv2d, network.head[-1])


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("python -m training.logit_adjustment", description=__doc__.split("\n")[0])
    made.add_argument("checkpoint", type=Path, metavar="IN", help="a checkpoint of this project (.safetensors)")
    made.add_argument("--out", "-o", type=Path, required=True, help="where the shifted one is written")
    made.add_argument("--data", choices=tuple(DATASETS), default="camvid", help="data set (default: camvid)")
    made.add_argument("--root", type=Path, required=True, help="its folder, in the official layout")
    made.add_argument("--split", default="train", help="pictures to search on (default: train)")
    return made


if __name__ == "__main__":
    sys.exit(main())
