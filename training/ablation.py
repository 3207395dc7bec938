"""The paper's claim, checked: python -m training.ablation --root ../shared/camvid --out runs/ablation.

Trains four networks that differ in what they learn to align and in nothing else: one schedule, the same views, and for
each seed the same initial weights, so that at step 0 all four compute the same function.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from model_export import checkpoint
from model_export.atomic import replacing
from training import config as configs
from training import train
from training.ablation_report import ALIGNED, write
from training.boundaries import BoundaryScore
from training.config import Config
from training.cost import cost
from training.data import hold_out
from training.datasets import DATASETS
from training.evaluate import evaluate
from training.predict import with_network
from training.report import report
from training.stopping import stopping

DESCRIPTION = """\
Train plain upsampling, + AlignFA, + AlignCM and both with one schedule, for each seed, measure them on val, and write
a table and a figure. Finished runs are not repeated; after Ctrl-C the same command goes on where it stopped.
All flags of training.train that describe a schedule may be given too (see python -m training.train --help)."""

EPILOG = """\
example:
  python -m training.ablation --root ../shared/camvid --out runs/ablation --seeds 0,1,2 --processes 2 \\
    --epochs 30 --crop 257x321 --scale 0.5-1.5 --loss-stride 2 --workers 0"""

Train = Callable[[Sequence[str]], int]
"""Runs training.train with these flags in whatever way; returns its exit status."""

LAST_ONLY = 10**9
"""Epochs between evaluations: the last step alone is evaluated, and kept. Nothing is selected on val."""
STOPPED = 130


class AblationError(Exception):
    """A run is of another schedule, or failed."""


@dataclass(frozen=True)
class Run:
    """One network to train. folder: of its run. config: all its choices."""

    folder: Path
    config: Config

    @property
    def result(self) -> Path:
        """The file of its figures, which is there when it is finished."""
        return self.folder / "result.json"


def plan(base: Config, out: Path, seeds: Sequence[int]) -> Iterator[Run]:
    """The four variants of each seed in turn, so that an ablation cut short has whole seeds."""
    for seed in seeds:
        for align in ALIGNED:
            yield Run(out / f"{align}-seed{seed}", replace(base, align=align, seed=seed, eval_every=LAST_ONLY))


def carry_out(run: Run, train_run: Train, device: str, tolerance: float) -> bool:
    """Train and measure, as far as that is not done yet; False when asked to stop.

    Raises AblationError.
    """
    _expect_schedule(run)
    if run.result.exists():
        return True
    resumed = (run.folder / "state.pt").exists()
    flags = ["--resume"] if resumed else _flags(run.config)
    status = train_run([f"--out={run.folder}", f"--device={device}", *flags])
    if status == STOPPED:
        return False
    if status:
        raise AblationError(f"training {run.folder} ended with status {status}; what it said is above")
    with replacing(run.result) as temporary:
        temporary.write_text(json.dumps(measure(run, device, tolerance), indent=2) + "\n")
    return True


def _expect_schedule(run: Run) -> None:
    path = run.folder / "config.json"
    if path.exists():
        there = asdict(Config.load(path))
        other = [k for k, v in asdict(run.config).items() if there[k] != v and k not in configs.MAY_CHANGE]
        if other:
            raise AblationError(
                f"{run.folder} is of another schedule: it has "
                + ", ".join(f"{name} {there[name]!r}, not {getattr(run.config, name)!r}" for name in other)
                + ". Choose another --out, or give the flags it was started with."
            )


def _flags(config: Config) -> list[str]:
    """The choices as flags of training.train, all of them, so that no recipe's default comes between."""
    given = {f"--{name.replace('_', '-')}": value for name, value in asdict(config).items()}
    return [flag if value is True else f"{flag}={value}" for flag, value in given.items() if value is not False]


def measure(run: Run, device: str, tolerance: float) -> dict[str, Any]:
    """The figures of a trained run on val, or on the drive it held out: whole pictures, float32."""
    c, dataset = run.config, DATASETS[run.config.data]
    pairs = hold_out.train_and_val(dataset, Path(c.root), c.train_on, c.hold_out)[1]
    network = checkpoint.load(run.folder / "best.safetensors").to(device)
    boundaries = BoundaryScore(dataset.num_classes, tolerance)
    confusion = evaluate(with_network(network), dataset, pairs, boundaries)
    size = dataset.read(pairs[0])[1].shape
    return {
        "align": run.config.align,
        "seed": run.config.seed,
        **report(confusion, boundaries, dataset),
        "pictures": len(pairs),
        "size": list(size),
        **asdict(cost(network.architecture, (size[0], size[1]))),
    }


def in_processes(count: int) -> Train:
    """Training in `count` processes of their own, which are asked to stop when this one is."""

    def run(flags: Sequence[str]) -> int:
        with stopping() as stop:
            # A session of its own: a terminal's Ctrl-C then reaches it once, from here, not a second time in mid-save.
            child = subprocess.Popen(command(count, flags), start_new_session=True)  # noqa: S603 (our own interpreter)
            asked = False
            while (status := _wait(child)) is None:
                if stop.wanted and not asked:
                    child.terminate()
                    asked = True
            return STOPPED if stop.wanted else status

    return run


def _wait(child: subprocess.Popen[bytes]) -> int | None:
    try:
        return child.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        return None


def command(count: int, flags: Sequence[str]) -> list[str]:
    """The command line of a training in `count` processes."""
    team = ["-m", "torch.distributed.run", "--nproc-per-node", str(count)] if count > 1 else []
    return [sys.executable, *team, "-m", "training.train", *flags]


def parser() -> argparse.ArgumentParser:
    """The command line; what it does not know goes to training.train's."""
    made = argparse.ArgumentParser(
        "python -m training.ablation",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--out", type=Path, required=True, help="folder of the runs")
    made.add_argument("--seeds", default="0,1,2", help="one ablation each (default: 0,1,2)")
    made.add_argument("--processes", type=int, default=1, help="that train one network together (default: 1)")
    made.add_argument(
        "--boundary", type=float, default=3, help="tolerance of the boundary F-score in pixels (default: 3)"
    )
    made.add_argument("--report", type=Path, default=Path("docs/ablation.md"), help="(default: docs/ablation.md)")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    return made


def main(argv: list[str] | None = None, train_run: Train | None = None) -> int:
    """Train, measure, write. The exit status: 0 done, 1 a run failed, 2 a mistake in the flags, 130 asked to stop."""
    arguments, rest = parser().parse_known_args(argv)
    console = Console(soft_wrap=True, highlight=False)
    try:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
        base = _schedule(train.parser().parse_args([f"--out={arguments.out}", *rest]))
        runs = list(plan(base, arguments.out, seeds))
        for run in runs:
            console.print(f"{run.folder}: {'finished' if run.result.exists() else 'training'}", markup=False)
            if not carry_out(run, train_run or in_processes(arguments.processes), arguments.device, arguments.boundary):
                return STOPPED
    except (AblationError, ValueError, OSError) as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", highlight=False, markup=False)
        return 1 if isinstance(error, AblationError) else 2
    write(arguments.report, [json.loads(run.result.read_text()) for run in runs], _again(arguments, rest), base)
    console.print(f"written: {arguments.report}, {arguments.report.with_suffix('.png')}", markup=False)
    return 0


def _schedule(arguments: argparse.Namespace) -> Config:
    if own := sorted(configs.given(arguments).keys() & {"align", "seed", "eval_every"}):
        raise ValueError(f"{own[0]}: the ablation chooses it for each run; leave --{own[0].replace('_', '-')} out")
    return configs.from_arguments(arguments)


def _again(arguments: argparse.Namespace, rest: Sequence[str]) -> str:
    """The command that makes the report anew."""
    own = [f"--out {arguments.out}", f"--seeds {arguments.seeds}", f"--processes {arguments.processes}"]
    return " ".join(["python -m training.ablation", *own, *rest])


if __name__ == "__main__":
    sys.exit(main())
