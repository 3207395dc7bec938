"""Trains AlignSeg: python -m training.train --root ../shared/camvid --out runs/NAME."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from rich.console import Console

from model_export.checkpoint import CheckpointError
from training.config import RECIPES, add_arguments, from_arguments, recipe_text, resumed
from training.curves import draw
from training.datasets import DATASETS
from training.log import CurveLog, Progressing, progressing
from training.parallel import Team
from training.stopping import Stop, stopping
from training.trainer import Trainer

DESCRIPTION = """\
Train AlignSeg on a labelled data set. Everything is written to the folder given as --out:
  config.json        the choices of this run      state.pt   all that --resume needs
  best.safetensors   the weights best on val      log.csv    loss, learning rate and val mIoU over the steps
  curves.png         the same, drawn
Ctrl-C or SIGTERM saves after the step in hand; --resume then goes on to the same result as if nothing had happened."""

EPILOG = """\
examples:
  python -m training.train --root ../shared/camvid --out runs/camvid
  python -m training.train --out runs/camvid --resume
  python -m training.train --recipe paper --root /data/cityscapes --out runs/cityscapes
  python -m training.train --recipe paper --root /data/cityscapes --out runs/r101 --init-from resnet101-imagenet.pth
  several GPUs, or a process for each core of a CPU (give --batch for all of them together):
  torchrun --nproc-per-node 2 -m training.train --root ../shared/camvid --out runs/camvid --workers 0

recipes (small-data is the defaults above):
{recipes}

data sets (nothing is downloaded by itself):
{downloads}"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    downloads = "\n".join("  " + dataset.download for dataset in DATASETS.values())
    made = argparse.ArgumentParser(
        "python -m training.train",
        description=DESCRIPTION,
        epilog=EPILOG.format(recipes=recipe_text(), downloads=downloads),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--out", type=Path, required=True, help="folder of the run")
    made.add_argument("--resume", action="store_true", help="go on with the run in --out, with its own choices")
    made.add_argument("--recipe", choices=tuple(RECIPES), default="small-data", help="where flags not given come from")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    add_arguments(made)
    return made


def main(argv: list[str] | None = None) -> int:
    """Train. The exit status: 0 done, 1 diverged, 2 a mistake in the flags or the data, 130 asked to stop."""
    arguments = parser().parse_args(argv)
    team = Team.join(arguments.device)
    console, errors = (Console(quiet=not team.leads, stderr=stderr) for stderr in (False, True))
    try:
        trainer = _start(arguments, team, console)
        with stopping() as stop:
            finished = run(trainer, arguments.out, console, stop)
    except (ValueError, FileNotFoundError, CheckpointError, FloatingPointError) as error:
        errors.print(f"error: {error}", highlight=False, markup=False)
        return 1 if isinstance(error, FloatingPointError) else 2
    team.leave()
    return 0 if finished else 130


def _start(arguments: argparse.Namespace, team: Team, console: Console) -> Trainer:
    """The trainer of a new run or of the one to go on with, and its folder."""
    out: Path = arguments.out
    state = out / "state.pt"
    if arguments.resume and not state.exists():
        raise ValueError(f"resume: expected a run at {state}, which does not exist; start it without --resume")
    if state.exists() and not arguments.resume:
        raise ValueError(f"out: {out} holds a run; go on with it by --resume, or choose another --out")
    config = resumed(out / "config.json", arguments) if arguments.resume else from_arguments(arguments)
    trainer = Trainer(config, torch.device(arguments.device), team)
    console.print(trainer.precision)
    if arguments.resume:
        trainer.load(state)
        return trainer
    if config.init_from:
        fit = trainer.start_from(Path(config.init_from))
        console.print(f"{len(fit.fitting)} tensors from {config.init_from}{fit}", highlight=False, markup=False)
    out.mkdir(parents=True, exist_ok=True)
    if team.leads:
        config.save(out / "config.json")
    return trainer


def run(trainer: Trainer, out: Path, console: Console, stop: Stop) -> bool:
    """Take the steps still to do, saving after each epoch and when stopped; False when stopped before the last.

    Raises FloatingPointError when the training diverges; the state of the last epoch is kept.
    """
    curve = CurveLog(out / "log.csv", trainer.step, writes=trainer.team.leads)
    with progressing(console, trainer.steps, trainer.step) as progress:
        for pictures, labels in trainer.batches():
            if trainer.step >= trainer.steps or trainer.team.any(stop.wanted):
                break
            loss = trainer.learn(pictures, labels)
            progress.step(trainer.step, loss)
            if trainer.step % trainer.steps_per_epoch == 0 or trainer.step == trainer.steps:
                _end_epoch(trainer, out, curve, progress)
    finished = trainer.step >= trainer.steps
    if not finished:
        trainer.save(out / "state.pt")
        console.print(f"stopped at step {trainer.step}; go on with: python -m training.train --out {out} --resume")
    if trainer.team.leads and curve.rows(curve.path):
        draw([out], out / "curves.png")
    return finished


def _end_epoch(trainer: Trainer, out: Path, curve: CurveLog, progress: Progressing) -> None:
    epoch, loss, miou = trainer.step // trainer.steps_per_epoch, trainer.take_mean_loss(), None
    if epoch % trainer.config.eval_every == 0 or trainer.step == trainer.steps:
        miou = trainer.validate().miou
        kept = trainer.keep_if_best(miou, out / "best.safetensors")
        measured = trainer.config.hold_out or "val"
        progress.say(f"epoch {epoch} loss {loss:.3f} {measured} mIoU {miou:.4f}{' (best)' if kept else ''}")
    curve.add(trainer.step, epoch, loss, trainer.rate, miou)
    trainer.save(out / "state.pt")


if __name__ == "__main__":
    sys.exit(main())
