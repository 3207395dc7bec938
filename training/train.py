"""Trains AlignSeg: python -m training.train --root ../shared/camvid --out runs/NAME."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from rich.console import Console

from training.config import RECIPES, Config, add_arguments, from_arguments
from training.datasets import DatasetError
from training.log import CurveLog, Progressing, progressing
from training.parallel import Team
from training.stopping import Stop, stopping
from training.trainer import Trainer

DESCRIPTION = """\
Train AlignSeg on a labelled data set. Everything is written to the folder given as --out:
  config.json        the choices of this run      state.pt   all that --resume needs
  best.safetensors   the weights best on val      log.csv    loss, learning rate and val mIoU over the steps"""

EPILOG = """\
examples:
  python -m training.train --root ../shared/camvid --out runs/camvid
  python -m training.train --out runs/camvid --resume
  python -m training.train --recipe paper --root /data/cityscapes --out runs/cityscapes"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        "python -m training.train",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--out", type=Path, required=True, help="folder of the run")
    made.add_argument("--resume", action="store_true", help="go on with the run in --out, with its own choices")
    made.add_argument("--recipe", choices=tuple(RECIPES), default="small-data", help="what flags not given are taken from")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    add_arguments(made)
    return made


def main(argv: list[str] | None = None) -> int:
    """Train; the exit status is 0, 2 for a mistake in the flags or the data, 130 when asked to stop."""
    arguments = parser().parse_args(argv)
    team = Team.join(torch.device(arguments.device))
    console = Console(quiet=not team.leads)
    try:
        trainer = _start(arguments, team)
    except (ValueError, DatasetError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, markup=False)
        return 2
    with stopping() as stop:
        finished = run(trainer, arguments.out, console, stop)
    team.leave()
    return 0 if finished else 130


def _start(arguments: argparse.Namespace, team: Team) -> Trainer:
    out: Path = arguments.out
    state = out / "state.pt"
    if arguments.resume:
        return _resume(out, torch.device(arguments.device), team)
    if state.exists():
        raise ValueError(f"out: {out} holds a run; go on with it by --resume, or choose another --out")
    config = from_arguments(arguments)
    trainer = Trainer(config, torch.device(arguments.device), team)
    out.mkdir(parents=True, exist_ok=True)
    config.save(out / "config.json")
    return trainer


def _resume(out: Path, device: torch.device, team: Team) -> Trainer:
    state = out / "state.pt"
    if not state.exists():
        raise ValueError(f"resume: expected a run at {state}, which does not exist; start it without --resume")
    trainer = Trainer(Config.load(out / "config.json"), device, team)
    trainer.load(state)
    return trainer


def run(trainer: Trainer, out: Path, console: Console, stop: Stop) -> bool:
    """The steps still to do; returns False when stopped before the last. Saves at the end of each epoch and when stopped."""
    curve = CurveLog(out / "log.csv", trainer.step, writes=trainer.team.leads)
    with progressing(console, trainer.steps, trainer.step) as progress:
        losses: list[float] = []
        for pictures, labels in trainer.batches():
            if trainer.step >= trainer.steps or trainer.team.any(stop.wanted):
                break
            losses.append(trainer.learn(pictures, labels))
            progress.step(trainer.step, losses[-1])
            if trainer.step % trainer.steps_per_epoch == 0 or trainer.step == trainer.steps:
                _end_epoch(trainer, out, curve, progress, sum(losses) / len(losses))
                losses.clear()
    if trainer.step < trainer.steps:
        trainer.save(out / "state.pt")
        console.print(f"stopped at step {trainer.step}; go on with: python -m training.train --out {out} --resume")
        return False
    return True


def _end_epoch(trainer: Trainer, out: Path, curve: CurveLog, progress: Progressing, loss: float) -> None:
    epoch = trainer.step // trainer.steps_per_epoch
    miou = None
    if epoch % trainer.config.eval_every == 0 or trainer.step == trainer.steps:
        miou = trainer.validate().miou
        best = trainer.keep_if_best(miou, out / "best.safetensors")
        progress.say(f"epoch {epoch} loss {loss:.3f} val mIoU {miou:.4f}{' (best)' if best else ''}")
    curve.add(trainer.step, epoch, loss, trainer.optimizer.param_groups[0]["lr"], miou)
    trainer.save(out / "state.pt")


if __name__ == "__main__":
    sys.exit(main())
