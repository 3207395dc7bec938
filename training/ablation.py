"""Ablation of learned alignment: python -m training.ablation --root DATA --out runs/ablation.

Trains four networks that differ only in what they learn to align: the same schedule, the same views and, for each seed,
the same initial weights, so that at step 0 all four compute the same function.
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

from model_export.checkpoints import checkpoint
from model_export.flops import cost
from service.files import atomic_replace
from training import config as configs
from training import train
from training.config import Config
from training.data import hold_out
from training.data.datasets import DATASETS
from training.evaluation.ablation_report import ALIGNED, write
from training.evaluation.boundary_f1 import BoundaryScore
from training.evaluation.measure import evaluate
from training.evaluation.predictors import with_network
from training.evaluation.report import report
from training.interruption import stopping

DESCRIPTION = """\
Train plain upsampling, + AlignFA, + AlignCM and both with one schedule for each seed, measure them on val, and write a
table and a figure. Finished runs are not repeated; after Ctrl-C, run the same command to continue.
All options of training.train that describe a schedule are accepted too (see python -m training.train --help)."""

EPILOG = """\
example:
  python -m training.ablation --root ../shared/camvid --out runs/ablation --seeds 0,1,2 --processes 2 \\
    --epochs 30 --crop 257x321 --scale 0.5-1.5 --loss-stride 2 --workers 0"""

Train = Callable[[Sequence[str]], int]
"""Runs training.train with these options and returns its exit status."""

LAST_ONLY = 10**9
"""Epochs between evaluations: only the last step is evaluated and kept, so that nothing is selected on val."""
STOPPED = 130
"""Exit status of a training that was asked to stop."""


class AblationError(Exception):
    """A run has another schedule, or its training failed."""


@dataclass(frozen=True)
class Run:
    """One network to train. folder: of its run. config: all its options."""

    folder: Path
    config: Config

    @property
    def result(self) -> Path:
        """The file of its metrics, written when the run is finished."""
        return self.folder / "result.json"


def plan(base: Config, out: Path, seeds: Sequence[int]) -> Iterator[Run]:
    """The four variants of the first seed, then of the next, so that an interrupted ablation has complete seeds."""
    for seed in seeds:
        for align in ALIGNED:
            yield Run(out / f"{align}-seed{seed}", replace(base, align=align, seed=seed, eval_every=LAST_ONLY))


def carry_out(run: Run, train_run: Train, device: str, tolerance: float) -> bool:
    """Train and measure a run, unless it is done. False when the training was asked to stop. Raises AblationError."""
    _expect_schedule(run)
    if run.result.exists():
        return True
    flags = ["--resume"] if (run.folder / "state.pt").exists() else _flags(run.config)
    status = train_run([f"--out={run.folder}", f"--device={device}", *flags])
    if status == STOPPED:
        return False
    if status:
        raise AblationError(f"training of {run.folder} failed with status {status}; see its output above")
    with atomic_replace(run.result) as temporary:
        temporary.write_text(json.dumps(measure(run, device, tolerance), indent=2) + "\n")
    return True


def _expect_schedule(run: Run) -> None:
    path = run.folder / "config.json"
    if path.exists():
        saved = asdict(Config.load(path))
        may_change = configs.MAY_CHANGE | ({"amp"} if run.config.amp == "auto" else set())
        changed = [k for k, v in asdict(run.config).items() if saved[k] != v and k not in may_change]
        if changed:
            raise AblationError(
                f"{run.folder} was started with other options: "
                + ", ".join(f"{name} {saved[name]!r}, not {getattr(run.config, name)!r}" for name in changed)
                + ". Use another --out, or the earlier options."
            )


def _flags(config: Config) -> list[str]:
    """All options as flags of training.train, so that no default of a recipe applies."""
    values = {f"--{name.replace('_', '-')}": value for name, value in asdict(config).items()}
    return [flag if value is True else f"{flag}={value}" for flag, value in values.items() if value is not False]


def measure(run: Run, device: str, tolerance: float) -> dict[str, Any]:
    """The metrics of a trained run on val, or on the drive it held out: whole images, float32."""
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
    """A Train that starts `count` child processes, which are asked to stop when this process is."""

    def run(flags: Sequence[str]) -> int:
        with stopping() as stop:
            # In a session of its own, so that Ctrl-C reaches it once, through this process.
            child = subprocess.Popen(command(count, flags), start_new_session=True)  # noqa: S603 (our own interpreter)
            terminated = False
            while (status := _wait(child)) is None:
                if stop.requested and not terminated:
                    child.terminate()
                    terminated = True
            return STOPPED if stop.requested else status

    return run


def _wait(child: subprocess.Popen[bytes]) -> int | None:
    try:
        return child.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        return None


def command(count: int, flags: Sequence[str]) -> list[str]:
    """The command line of a training in `count` processes."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(count)] if count > 1 else []
    return [sys.executable, *launcher, "-m", "training.train", *flags]


def parser() -> argparse.ArgumentParser:
    """The command line; unknown options are parsed by training.train."""
    options = argparse.ArgumentParser(
        "python -m training.ablation",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    options.add_argument("--out", type=Path, required=True, help="folder for the runs")
    options.add_argument("--seeds", default="0,1,2", help="seeds; each trains all four networks (default: 0,1,2)")
    options.add_argument(
        "--processes", type=int, default=1, help="number of processes that train a network (default: 1)"
    )
    options.add_argument(
        "--boundary", type=float, default=3, help="tolerance of the boundary F-score, in pixels (default: 3)"
    )
    options.add_argument(
        "--report",
        type=Path,
        default=Path("docs/ablation.md"),
        help="Markdown file to write (default: docs/ablation.md)",
    )
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    return options


def main(argv: list[str] | None = None, train_run: Train | None = None) -> int:
    """Train, measure, write. Exit status: 0 done, 1 a run failed, 2 invalid options, 130 asked to stop."""
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
    write(arguments.report, [json.loads(run.result.read_text()) for run in runs], _command_line(arguments, rest), base)
    console.print(f"written: {arguments.report}, {arguments.report.with_suffix('.png')}", markup=False)
    return 0


def _schedule(arguments: argparse.Namespace) -> Config:
    if own := sorted(configs.given(arguments).keys() & {"align", "seed", "eval_every"}):
        raise ValueError(f"--{own[0].replace('_', '-')} is set for each run by the ablation; remove it")
    return configs.from_arguments(arguments)


def _command_line(arguments: argparse.Namespace, rest: Sequence[str]) -> str:
    """The command that produces the report."""
    own = [f"--out {arguments.out}", f"--seeds {arguments.seeds}", f"--processes {arguments.processes}"]
    return " ".join(["python -m training.ablation", *own, *rest])


if __name__ == "__main__":
    sys.exit(main())
