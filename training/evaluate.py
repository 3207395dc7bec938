"""Measures masks against labels: alignseg evaluate --model weights/alignseg-lite --data camvid --split val."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol, get_args

import torch
from rich.console import Console
from rich.progress import track

from model_export import checkpoint
from service import manifest as manifests
from service.engines.select import open_engine
from service.errors import AlignSegError
from service.settings import EngineName, Settings
from training.boundaries import TOLERANCE, BoundaryScore
from training.data import hold_out
from training.datasets import DATASETS, Bytes, Dataset, DatasetError, Pair
from training.metrics import Confusion
from training.predict import PredictionError, Predictor, load_network, with_engine, with_network, with_server
from training.protocols import OVERLAP, Viewing
from training.report import draw_confusion, heading, report, table

DESCRIPTION = """\
Measure masks against labels: mIoU and IoU by class, pixel accuracy, boundary F-score, confusion matrix.
Measured is a checkpoint through PyTorch, a model folder through the engine that serves it, or a running server."""

EPILOG = """\
examples:
  alignseg evaluate --model weights/alignseg-lite --data camvid --split val
  alignseg evaluate --model weights/alignseg-lite --engine pytorch --figure confusion.png
  alignseg evaluate --server http://localhost:8000 --root ../shared/camvid --json served.json
  alignseg evaluate --checkpoint weights.pth --data cityscapes --root /data/cityscapes --tile 872x872
  alignseg evaluate --checkpoint best.safetensors --split train --drive 0006R0
  alignseg evaluate --checkpoint best.safetensors --scales 0.75,1,1.25 --flip"""

PYTORCH = "pytorch"
ENGINES = (*get_args(EngineName), PYTORCH)
MISTAKES = (ValueError, OSError, HTTPException, checkpoint.CheckpointError, AlignSegError, PredictionError)
HOMES = (Path("data"), Path("../shared"))


class Meter(Protocol):
    """What counts class maps."""

    def add(self, predicted: Bytes, truth: Bytes) -> None:
        """Count one picture; both uint8 (H, W)."""


def evaluate(predict: Predictor, dataset: Dataset, pairs: Iterable[Pair], *more: Meter) -> Confusion:
    """Every picture of `pairs` through the predictor, counted together, by `more` too."""
    confusion = Confusion(dataset.num_classes)
    for pair in pairs:
        picture, labels = dataset.read(pair)
        predicted = predict(picture)
        for meter in (confusion, *more):
            meter.add(predicted, labels)
    return confusion


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        "alignseg evaluate",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoint", type=Path, metavar="FILE", help="a checkpoint, through PyTorch")
    what.add_argument("--model", type=Path, metavar="FOLDER", help="a model folder (weights/...), through --engine")
    what.add_argument("--server", metavar="URL", help="a running server, over HTTP (a key: $ALIGNSEG_API_KEY)")
    made.add_argument("--engine", choices=ENGINES, default="auto", help="of --model (default: auto, as in serving)")
    made.add_argument("--data", choices=tuple(DATASETS), default="camvid", help="data set (default: camvid)")
    made.add_argument(
        "--root", type=Path, help="its folder, in the official layout (default: data/NAME, ../shared/NAME)"
    )
    made.add_argument("--split", default="val", help="train, val or test (default: val)")
    made.add_argument("--drive", help="only the pictures of this drive, as 0006R0 of --split train")
    made.add_argument("--limit", type=int, help="only this many pictures, the first ones")
    _add_viewing(made.add_argument_group("how to look at each picture, through PyTorch alone (default: once, whole)"))
    made.add_argument(
        "--boundary", type=float, default=TOLERANCE, metavar="PIXELS", help=f"tolerance of F (default: {TOLERANCE})"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures, with the confusion matrix")
    made.add_argument("--figure", type=Path, metavar="FILE", help="draw the confusion matrix as a PNG")
    return made


def _add_viewing(group: Any) -> None:
    cuda = "cuda" if torch.cuda.is_available() else "cpu"
    group.add_argument("--tile", metavar="HxW", help="sliding window; the published protocol's is 872x872")
    group.add_argument("--overlap", type=float, default=OVERLAP, help="share of a tile (default: a third)")
    group.add_argument("--scales", default="1", help="average over these scales, as 0.75,1,1.25")
    group.add_argument("--flip", action="store_true", help="average with the mirror image")
    group.add_argument("--average", choices=("logits", "probabilities"), default="logits", help="(default: logits)")
    group.add_argument("--device", default=cuda, help=f"cpu or cuda (default: {cuda})")


def main(argv: list[str] | None = None) -> int:
    """Print the table; the exit status is 0, or 1 when something could not be measured."""
    arguments = parser().parse_args(argv)
    try:
        figures = _measure(arguments)
        _write(figures, arguments)
    except MISTAKES as error:
        Console(stderr=True).print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        return 1
    Console().print(heading(figures), table(figures), sep="\n", highlight=False, soft_wrap=True)
    return 0


def _write(figures: dict[str, Any], arguments: argparse.Namespace) -> None:
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if arguments.figure:
        draw_confusion(figures, arguments.figure)


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    dataset, viewing = DATASETS[arguments.data], _viewing(arguments)
    pairs = dataset.pairs(_root(arguments), arguments.split)
    split = arguments.split
    if arguments.drive:
        pairs, split = hold_out.only(pairs, arguments.drive), f"{split}, drive {arguments.drive}"
    pairs = pairs[: arguments.limit]
    predict, measured = _predictor(arguments, dataset, viewing)
    boundaries = BoundaryScore(dataset.num_classes, arguments.boundary)
    shown = track(pairs, "evaluating", console=Console(stderr=True), disable=not sys.stderr.isatty())
    figures = report(evaluate(predict, dataset, shown, boundaries), boundaries, dataset)
    return {"measured": measured, "data": dataset.name, "split": split, "pictures": len(pairs), **figures}


def _root(arguments: argparse.Namespace) -> Path:
    """The folder given, or the first place where the data set is likely to lie."""
    likely = [home / arguments.data for home in HOMES]
    there = next((path for path in likely if path.is_dir()), likely[0])
    return Path(arguments.root or there)


def _viewing(arguments: argparse.Namespace) -> Viewing:
    """Raises ValueError that names the flag, what it got and what it takes."""
    try:
        tile = tuple(int(side) for side in arguments.tile.split("x")) if arguments.tile else None
        scales = tuple(float(scale) for scale in arguments.scales.split(","))
    except ValueError:
        raise ValueError(
            f"tile, scales: got {arguments.tile}, {arguments.scales}; expected HxW, as 872x872, and 0.75,1,1.25"
        ) from None
    if tile is not None and len(tile) != 2:
        raise ValueError(f"tile: got {arguments.tile}, expected HxW, as 872x872")
    return Viewing(tile, arguments.overlap, scales, arguments.flip, arguments.average)


def _predictor(arguments: argparse.Namespace, dataset: Dataset, viewing: Viewing) -> tuple[Predictor, str]:
    """What predicts, and its name for headings."""
    if arguments.checkpoint or (arguments.model and arguments.engine == PYTORCH):
        path = arguments.checkpoint or arguments.model
        network = load_network(path).to(arguments.device)
        _expect_classes(network.architecture.num_classes, dataset, path)
        return with_network(network, viewing.look(network)), f"{path} through PyTorch, {viewing}"
    if not viewing.plain:
        raise ValueError(f"{viewing}: tiles, scales and mirror images need the logits; give --engine {PYTORCH}")
    if arguments.server:
        return with_server(arguments.server, os.environ.get("ALIGNSEG_API_KEY")), arguments.server
    manifest = manifests.load(arguments.model)
    _expect_classes(len(manifest.classes), dataset, arguments.model)
    engine = open_engine(Settings(model=arguments.model, engine=arguments.engine), manifest)
    return with_engine(engine, manifest.input.buckets), f"{arguments.model} through {engine.name}"


def _expect_classes(found: int, dataset: Dataset, path: Path) -> None:
    if found != dataset.num_classes:
        raise DatasetError(
            f"{path} tells {found} classes apart, expected {dataset.num_classes}, as {dataset.name} has. "
            f"Give the data set it was trained on as --data."
        )


if __name__ == "__main__":
    sys.exit(main())
