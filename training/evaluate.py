"""Measures accuracy on labelled images: alignseg evaluate --model weights/alignseg-lite --data camvid --split val."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from rich.progress import track

from model_export.checkpoints import checkpoint
from service.engines.selection import open_engine
from service.errors import AlignSegError
from service.model_folder import manifest as manifests
from service.settings import EngineName, Settings
from service.types import parse_size
from training.data import hold_out
from training.data.datasets import DATASETS, Dataset
from training.data.errors import DatasetError
from training.evaluation.boundary_f1 import TOLERANCE, BoundaryScore
from training.evaluation.inference_modes import OVERLAP, InferenceMode
from training.evaluation.measure import evaluate
from training.evaluation.predictors import (
    PredictionError,
    Predictor,
    load_network,
    with_engine,
    with_network,
    with_server,
)
from training.evaluation.report import draw_confusion, heading, report, table

DESCRIPTION = """\
Measure accuracy on labelled images: mIoU and IoU of each class, pixel accuracy, boundary F-score, confusion matrix.
What is measured is a checkpoint with PyTorch, a model folder with an inference engine, or a running server."""

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
ERRORS = (ValueError, OSError, checkpoint.CheckpointError, AlignSegError, PredictionError)
DATA_FOLDERS = (Path("data"), Path("../shared"))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(
        "alignseg evaluate",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = options.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, metavar="FILE", help="a checkpoint, measured with PyTorch")
    source.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="a model folder, such as weights/alignseg-lite, measured with --engine",
    )
    source.add_argument("--server", metavar="URL", help="a running server; the API key is read from ALIGNSEG_API_KEY")
    options.add_argument(
        "--engine", choices=ENGINES, default="auto", help="runtime of --model (default: auto, as in serving)"
    )
    options.add_argument("--data", choices=tuple(DATASETS), default="camvid", help="data set (default: camvid)")
    options.add_argument(
        "--root",
        type=Path,
        help="folder of the data set, in its official layout (default: data/NAME or ../shared/NAME)",
    )
    options.add_argument("--split", default="val", help="train, val or test (default: val)")
    options.add_argument("--drive", help="measure only this CamVid drive, such as 0006R0 of --split train")
    options.add_argument("--limit", type=_count, help="measure only this many images, from the first")
    _add_inference_mode(options.add_argument_group("inference mode, with PyTorch only (default: the whole image once)"))
    options.add_argument(
        "--boundary",
        type=_tolerance,
        default=TOLERANCE,
        metavar="PIXELS",
        help=f"tolerance of the boundary F-score (default: {TOLERANCE})",
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="write the metrics and the confusion matrix as JSON")
    options.add_argument("--figure", type=Path, metavar="FILE", help="write the confusion matrix as a PNG")
    return options


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number of images, at least 1")
    return int(text)


def _tolerance(text: str) -> float:
    if not text.replace(".", "", 1).isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number of pixels, 0 or more")
    return float(text)


def _add_inference_mode(group: Any) -> None:
    cuda = "cuda" if torch.cuda.is_available() else "cpu"
    group.add_argument("--tile", metavar="HxW", help="sliding window of this size; the published protocol uses 872x872")
    group.add_argument(
        "--overlap", type=float, default=OVERLAP, help="share of a tile that neighbours overlap (default: a third)"
    )
    group.add_argument("--scales", default="1", help="average over these scales, such as 0.75,1,1.25 (default: 1)")
    group.add_argument("--flip", action="store_true", help="average with the mirror image")
    group.add_argument(
        "--average", choices=("logits", "probabilities"), default="logits", help="what is averaged (default: logits)"
    )
    group.add_argument("--device", default=cuda, help=f"cpu or cuda (default: {cuda})")


def main(argv: list[str] | None = None) -> int:
    """Print the table. Exit status: 0, or 1 when the measurement failed."""
    arguments = parser().parse_args(argv)
    try:
        _check_outputs(arguments)
        metrics = _measure(arguments)
        _write(metrics, arguments)
    except ERRORS as error:
        Console(stderr=True).print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        return 1
    Console().print(heading(metrics), table(metrics), sep="\n", highlight=False, soft_wrap=True)
    return 0


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Before hours of measuring. Raises ValueError that names the option."""
    for option in ("json", "figure"):
        path = getattr(arguments, option)
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            reason = "is a folder" if path.is_dir() else f"can't be written: there is no folder {path.parent}"
            raise ValueError(f"--{option}: {path} {reason}; expected a file in an existing folder")


def _write(metrics: dict[str, Any], arguments: argparse.Namespace) -> None:
    if arguments.json:
        arguments.json.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    if arguments.figure:
        draw_confusion(metrics, arguments.figure)


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    dataset, mode = DATASETS[arguments.data], _inference_mode(arguments)
    pairs, split = dataset.pairs(_root(arguments), arguments.split), arguments.split
    if arguments.drive:
        pairs, split = hold_out.only(pairs, arguments.drive), f"{split}, drive {arguments.drive}"
    pairs = pairs[: arguments.limit]
    boundaries = BoundaryScore(dataset.num_classes, arguments.boundary)
    progress = track(pairs, "evaluating", console=Console(stderr=True), disable=not sys.stderr.isatty())
    with ExitStack() as stack:
        predict, measured = _predictor(arguments, dataset, mode, stack)
        metrics = report(evaluate(predict, dataset, progress, boundaries), boundaries, dataset)
    return {"measured": measured, "data": dataset.name, "split": split, "pictures": len(pairs), **metrics}


def _root(arguments: argparse.Namespace) -> Path:
    """--root, or the first of the usual folders that exists."""
    candidates = [folder / arguments.data for folder in DATA_FOLDERS]
    return Path(arguments.root or next((path for path in candidates if path.is_dir()), candidates[0]))


def _inference_mode(arguments: argparse.Namespace) -> InferenceMode:
    """Raises ValueError that names the option."""
    tile = parse_size(arguments.tile, "HxW", name="--tile") if arguments.tile else None
    try:
        scales = tuple(float(scale) for scale in arguments.scales.split(","))
    except ValueError:
        raise ValueError(f"--scales: got {arguments.scales!r}; expected numbers, such as 0.75,1,1.25") from None
    return InferenceMode(tile, arguments.overlap, scales, arguments.flip, arguments.average)


def _predictor(
    arguments: argparse.Namespace, dataset: Dataset, mode: InferenceMode, stack: ExitStack
) -> tuple[Predictor, str]:
    """What is measured, and its name for headings. What has to be closed goes onto `stack`."""
    if arguments.checkpoint or (arguments.model and arguments.engine == PYTORCH):
        path = arguments.checkpoint or arguments.model
        network = load_network(path).to(arguments.device)
        _check_classes(network.architecture.num_classes, dataset, path)
        return with_network(network, mode.predict_with(network)), f"{path} with PyTorch, {mode}"
    if not mode.is_default:
        raise ValueError(f"{mode}: only PyTorch supports tiles, scales and mirror images; use --engine {PYTORCH}")
    if arguments.server:
        api_key = os.environ.get("ALIGNSEG_API_KEY") or None
        return stack.enter_context(with_server(arguments.server, api_key)), arguments.server
    manifest = manifests.load(arguments.model)
    _check_classes(len(manifest.classes), dataset, arguments.model)
    engine = open_engine(Settings(model=arguments.model, engine=arguments.engine), manifest)
    stack.callback(engine.close)
    return with_engine(engine, manifest.input.buckets), f"{arguments.model} with {engine.name}"


def _check_classes(num_classes: int, dataset: Dataset, path: Path) -> None:
    if num_classes != dataset.num_classes:
        raise DatasetError(
            f"{path} has {num_classes} classes; expected {dataset.num_classes}, those of {dataset.name}. "
            "Pass the data set it was trained on with --data."
        )


if __name__ == "__main__":
    sys.exit(main())
