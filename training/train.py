"""Trains AlignSeg: python -m training.train --root DATA --out runs/NAME."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from model_export.checkpoints.checkpoint import CheckpointError
from training.config import RECIPES, add_arguments, from_arguments, recipe_text, resumed
from training.data.datasets import DATASETS
from training.figures.learning_curves import draw
from training.interruption import Stop, Stopped, stopping
from training.loop.distributed import ProcessGroup
from training.loop.progress import CurveLog, ProgressDisplay, progress_display
from training.loop.trainer import Trainer

DESCRIPTION = """\
Train AlignSeg on a labelled data set. All files are written to the folder --out:
  config.json        the options of the run            state.pt   the state for --resume
  best.safetensors   the weights with the best val mIoU
  log.csv            loss, learning rate and val mIoU by step
  curves.png         a plot of log.csv
Ctrl-C or SIGTERM saves the state after the current step, or the current image of an evaluation. A run continued with
--resume gives the same result as one without interruption."""

EPILOG = """\
examples:
  python -m training.train --root ../shared/camvid --out runs/camvid
  python -m training.train --out runs/camvid --resume
  python -m training.train --recipe paper --root /data/cityscapes --out runs/cityscapes
  python -m training.train --recipe paper --root /data/cityscapes --out runs/r101 --init-from resnet101-imagenet.pth
  several GPUs, or one process per CPU core (--batch is the total over all processes):
  torchrun --nproc-per-node 2 -m training.train --root ../shared/camvid --out runs/camvid --workers 0

recipes (small-data has the defaults above):
{recipes}

data sets (none is downloaded automatically):
{downloads}"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    downloads = "\n".join("  " + dataset.download for dataset in DATASETS.values())
    options = argparse.ArgumentParser(
        "python -m training.train",
        description=DESCRIPTION,
        epilog=EPILOG.format(recipes=recipe_text(), downloads=downloads),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--out", type=Path, required=True, help="folder for the run's files")
    options.add_argument("--resume", action="store_true", help="continue the run in --out with its options")
    options.add_argument("--recipe", choices=tuple(RECIPES), default="small-data", help="defaults of the options below")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    add_arguments(options)
    return options


def main(argv: list[str] | None = None) -> int:
    """Train. Exit status: 0 done, 1 diverged, 2 invalid options or data, 130 asked to stop."""
    arguments = parser().parse_args(argv)
    group = ProcessGroup.join(arguments.device)
    console, errors = (Console(quiet=not group.is_main, stderr=stderr) for stderr in (False, True))
    try:
        trainer = _start(arguments, group, console)
        with stopping() as stop:
            finished = run(trainer, arguments.out, console, stop)
    except (ValueError, FileNotFoundError, CheckpointError, FloatingPointError) as error:
        errors.print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        return 1 if isinstance(error, FloatingPointError) else 2
    group.close()
    return 0 if finished else 130


def _start(arguments: argparse.Namespace, group: ProcessGroup, console: Console) -> Trainer:
    """The trainer of a new or resumed run."""
    out: Path = arguments.out
    state = out / "state.pt"
    if arguments.resume and not state.exists():
        raise ValueError(f"--resume: {state} does not exist. Start the run without --resume.")
    if state.exists() and not arguments.resume:
        raise ValueError(f"--out: {out} already contains a run. Continue it with --resume, or use another folder.")
    config = resumed(out / "config.json", arguments) if arguments.resume else from_arguments(arguments)
    trainer = Trainer(config, torch.device(arguments.device), group)
    console.print(trainer.precision)
    if arguments.resume:
        trainer.load(state)
        return trainer
    if config.init_from:
        fit = trainer.start_from(Path(config.init_from))
        console.print(f"loaded {len(fit.fitting)} tensors from {config.init_from}{fit}", highlight=False, markup=False)
    out.mkdir(parents=True, exist_ok=True)
    if group.is_main:
        chosen = "bf16" if trainer.bf16 else "none"  # by this machine; another one continues in the same precision
        replace(config, amp=chosen).save(out / "config.json")
    return trainer


def run(trainer: Trainer, out: Path, console: Console, stop: Stop) -> bool:
    """Train for the remaining steps, saving after each epoch and when stopped. False when stopped before the last step.

    Raises FloatingPointError when the training diverges; the state of the last epoch is kept.
    """
    curve = CurveLog(out / "log.csv", trainer.step, writes=trainer.team.is_main)
    finished = False
    with progress_display(console, trainer.steps, trainer.step) as progress, suppress(Stopped):
        for images, labels in trainer.batches():
            if trainer.epoch_is_open:
                _end_epoch(trainer, out, curve, progress, stop)
            finished = trainer.step >= trainer.steps
            if finished or trainer.team.any(stop.requested):
                break
            progress.step(trainer.step + 1, trainer.learn(images, labels))
    if not finished:
        trainer.save(out / "state.pt")
        console.print(f"stopped at step {trainer.step}; continue with: python -m training.train --out {out} --resume")
    if trainer.team.is_main and curve.rows(curve.path):
        draw([out], out / "curves.png")
    return finished


def _end_epoch(trainer: Trainer, out: Path, curve: CurveLog, progress: ProgressDisplay, stop: Stop) -> None:
    """Raises Stopped; the epoch is then open, and its end is repeated by a resumed run."""
    epoch, miou = trainer.step // trainer.steps_per_epoch, None
    evaluates = epoch % trainer.config.eval_every == 0 or trainer.step == trainer.steps
    confusion = trainer.validate(lambda: stop.requested) if evaluates else None
    loss = trainer.take_mean_loss()
    if confusion is not None:
        miou = confusion.miou
        kept = trainer.keep_if_best(miou, out / "best.safetensors")
        measured = trainer.config.hold_out or "val"
        progress.print(f"epoch {epoch} loss {loss:.3f} {measured} mIoU {miou:.4f}{' (best)' if kept else ''}")
    curve.add(trainer.step, epoch, loss, trainer.rate, miou)
    trainer.save(out / "state.pt")


if __name__ == "__main__":
    sys.exit(main())
