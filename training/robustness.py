"""Measures masks under bad weather, light, optics and compression: python -m training.robustness MODEL --split val."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from service.engines.selection import open_engine
from service.model_folder import manifest as manifests
from service.settings import EngineName, Settings
from training.data import hold_out
from training.data.corruptions import CORRUPTIONS
from training.data.datasets import DATASETS, Dataset, Pair
from training.evaluate import ENGINES, ERRORS, PYTORCH
from training.evaluation.confusion import Confusion
from training.evaluation.predictors import Predictor, load_network, with_engine, with_network

STRENGTHS = (1 / 3, 2 / 3, 1.0)
CLEAN = "clean"
Figures = dict[str, list[float]]
"""mIoU, 0..1, at each strength by the corruption's name, and of images as they are under CLEAN."""

DESCRIPTION = """\
Measure mIoU under each corruption of training/data/corruptions.py at three strengths. Noise is a function of the image
and the corruption alone, so that two models see the same images."""

EPILOG = """\
examples:
  python -m training.robustness weights/alignseg-lite --root ../shared/camvid
  python -m training.robustness old.safetensors new.safetensors --split train --drive 0006R0 --limit 30"""


def measure(predict: Predictor, dataset: Dataset, pairs: Sequence[Pair], strengths: Sequence[float]) -> Figures:
    """The figures of one predictor."""
    counted = {name: [Confusion(dataset.num_classes) for _ in strengths] for name in CORRUPTIONS}
    clean = Confusion(dataset.num_classes)
    for pair in track(pairs, "measuring", console=Console(stderr=True), disable=not sys.stderr.isatty()):
        image, labels = dataset.read(pair)
        clean.add(predict(image), labels)
        for name, corrupted in CORRUPTIONS.items():
            for strength, confusion in zip(strengths, counted[name], strict=True):
                rng = np.random.default_rng(crc32(f"{pair.picture.name} {name}".encode()))
                confusion.add(predict(np.ascontiguousarray(corrupted(image, strength, rng))), labels)
    return {CLEAN: [clean.miou], **{name: [c.miou for c in confusions] for name, confusions in counted.items()}}


def mean(figures: Figures) -> float:
    """Of all corruptions and strengths; clean images do not count."""
    return float(np.mean([value for name, values in figures.items() if name != CLEAN for value in values]))


def table(results: dict[str, Figures]) -> Table:
    """A row for each corruption, three columns for each model, in per cent."""
    shown = Table()
    shown.add_column("corruption")
    for name in results:
        shown.add_column(f"{name}: mIoU %, weak, medium, strong", justify="right")
    for corruption in (CLEAN, *CORRUPTIONS):
        cells = ("  ".join(f"{100 * value:.1f}" for value in figures[corruption]) for figures in results.values())
        shown.add_row(corruption, *cells)
    shown.add_section()
    shown.add_row("mean of the corrupted", *(f"{100 * mean(figures):.1f}" for figures in results.values()))
    return shown


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(
        "python -m training.robustness",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="model folders or checkpoints")
    options.add_argument("--engine", choices=ENGINES, default=PYTORCH, help="of model folders (default: pytorch)")
    options.add_argument("--data", choices=tuple(DATASETS), default="camvid", help="data set (default: camvid)")
    options.add_argument("--root", type=Path, default=Path("../shared/camvid"), help="(default: ../shared/camvid)")
    options.add_argument("--split", default="val", help="train, val or test (default: val)")
    options.add_argument("--drive", help="only the images of this drive, as 0006R0")
    options.add_argument("--limit", type=int, help="only this many images, spread evenly")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    return options


def main(argv: list[str] | None = None) -> int:
    """Print the table; the exit status is 0, or 1 when something could not be measured."""
    arguments = parser().parse_args(argv)
    try:
        dataset = DATASETS[arguments.data]
        pairs = _pairs(dataset, arguments)
        results = {
            str(model): measure(_predictor(model, arguments.engine), dataset, pairs, STRENGTHS)
            for model in arguments.models
        }
        _write(arguments.json, results, len(pairs))
    except ERRORS as error:
        Console(stderr=True).print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        return 1
    Console().print(table(results), highlight=False, soft_wrap=True)
    return 0


def _pairs(dataset: Dataset, arguments: argparse.Namespace) -> list[Pair]:
    pairs = dataset.pairs(arguments.root, arguments.split)
    if arguments.drive:
        pairs = hold_out.only(pairs, arguments.drive)
    step = max(1, len(pairs) // arguments.limit) if arguments.limit else 1
    return pairs[::step][: arguments.limit]


def _predictor(model: Path, engine: str) -> Predictor:
    if engine == PYTORCH or not model.is_dir():
        return with_network(load_network(model))
    manifest = manifests.load(model)
    opened = open_engine(Settings(model=model, engine=cast(EngineName, engine)), manifest)
    return with_engine(opened, manifest.input.buckets)


def _write(path: Path | None, results: dict[str, Figures], images: int) -> None:
    if path:
        content: dict[str, Any] = {"images": images, "strengths": STRENGTHS, "miou": results}
        path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
