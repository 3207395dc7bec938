"""Measures masks against labels: python -m training.evaluate --checkpoint X.safetensors --root ../shared/camvid."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from model_export import checkpoint
from service import manifest as manifests
from service.engines.onnx_runtime import ROLE, OnnxRuntimeEngine
from service.errors import AlignSegError
from training.datasets import DATASETS, Dataset, DatasetError, Pair
from training.metrics import Confusion
from training.predict import PredictionError, Predictor, with_engine, with_network, with_server

EPILOG = """\
examples:
  python -m training.evaluate --checkpoint runs/camvid/best.safetensors --root ../shared/camvid
  python -m training.evaluate --model weights/alignseg-lite --root ../shared/camvid --json onnx.json
  python -m training.evaluate --server http://localhost:8000 --root ../shared/camvid"""


def evaluate(predict: Predictor, dataset: Dataset, pairs: Iterable[Pair]) -> Confusion:
    """Every picture of `pairs` through the predictor, counted together."""
    confusion = Confusion(dataset.num_classes)
    for pair in pairs:
        picture, labels = dataset.read(pair)
        confusion.add(predict(picture), labels)
    return confusion


def report(confusion: Confusion, dataset: Dataset) -> dict[str, Any]:
    """The figures as JSON has them; null is the IoU of a class in neither labels nor predictions."""
    iou = [None if np.isnan(value) else round(float(value), 5) for value in confusion.iou]
    return {
        "miou": round(confusion.miou, 5),
        "pixel_accuracy": round(confusion.accuracy, 5),
        "iou": dict(zip(dataset.names, iou, strict=True)),
        "confusion": confusion.counts.tolist(),
    }


def table(figures: dict[str, Any]) -> Table:
    """The figures for people, in per cent."""
    made = Table()
    made.add_column("class")
    made.add_column("IoU %", justify="right")
    for name, iou in figures["iou"].items():
        made.add_row(name, "absent" if iou is None else f"{100 * iou:.1f}")
    made.add_section()
    made.add_row("mean (mIoU)", f"{100 * figures['miou']:.2f}")
    made.add_row("pixel accuracy", f"{100 * figures['pixel_accuracy']:.2f}")
    return made


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        "python -m training.evaluate",
        description="Measure the masks of a checkpoint, a model folder or a running server against labels.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoint", type=Path, help="a checkpoint, through PyTorch, whole pictures")
    what.add_argument("--model", type=Path, help="a model folder (weights/...), through ONNX Runtime")
    what.add_argument("--server", help="URL of a running server, over HTTP")
    made.add_argument("--data", choices=tuple(DATASETS), default="camvid", help="data set (default: camvid)")
    made.add_argument("--root", type=Path, required=True, help="folder of the data set, in its official layout")
    made.add_argument("--split", default="val", help="train, val or test (default: val)")
    made.add_argument("--limit", type=int, help="only this many pictures, the first ones")
    made.add_argument("--json", type=Path, help="write the figures, with the confusion matrix, to this file")
    return made


def main(argv: list[str] | None = None) -> int:
    """Print the table; the exit status is 0, or 1 when something could not be measured."""
    arguments = parser().parse_args(argv)
    try:
        figures = _measure(arguments)
    except (ValueError, OSError, HTTPException, checkpoint.CheckpointError, AlignSegError, PredictionError) as error:
        Console(stderr=True).print(f"error: {error}", highlight=False, markup=False)
        return 1
    heading = f"{figures['measured']}: {figures['data']} {figures['split']}, {figures['pictures']} pictures"
    Console().print(heading, table(figures), sep="\n", highlight=False, soft_wrap=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    dataset = DATASETS[arguments.data]
    pairs = dataset.pairs(arguments.root, arguments.split)[: arguments.limit]
    predict = _predictor(arguments, dataset)
    shown = track(pairs, "evaluating", console=Console(stderr=True), disable=not sys.stderr.isatty())
    figures = report(evaluate(predict, dataset, shown), dataset)
    measured = str(arguments.checkpoint or arguments.model or arguments.server)
    facts = {"measured": measured, "data": dataset.name, "split": arguments.split, "pictures": len(pairs)}
    return {**facts, **figures}


def _predictor(arguments: argparse.Namespace, dataset: Dataset) -> Predictor:
    if arguments.server:
        return with_server(arguments.server)
    if arguments.checkpoint:
        network = checkpoint.load(arguments.checkpoint)
        _expect_classes(network.architecture.num_classes, dataset, arguments.checkpoint)
        return with_network(network)
    manifest = manifests.load(arguments.model)
    _expect_classes(len(manifest.classes), dataset, arguments.model)
    engine = OnnxRuntimeEngine(manifests.verified_file(arguments.model, manifest, ROLE))
    return with_engine(engine, manifest.input.buckets)


def _expect_classes(found: int, dataset: Dataset, path: Path) -> None:
    if found != dataset.num_classes:
        raise DatasetError(
            f"{path} tells {found} classes apart, expected {dataset.num_classes}, as {dataset.name} has. "
            f"Give the data set it was trained on as --data."
        )


if __name__ == "__main__":
    sys.exit(main())
