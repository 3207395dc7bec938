"""What a run tells: a CSV for machines, a progress bar for a terminal, plain lines for a log file."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

COLUMNS = ("step", "epoch", "loss", "lr", "val_miou")


class CurveLog:
    """log.csv: one row an epoch. A resumed run first drops the rows of steps that it will repeat."""

    def __init__(self, path: Path, first_step: int, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        if not writes:
            return
        kept = [row for row in self.rows(path) if int(row["step"]) <= first_step]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)

    def add(self, step: int, epoch: int, loss: float, lr: float, val_miou: float | None) -> None:
        """One row; val_miou is empty when there was no evaluation."""
        if not self.writes:
            return
        with self.path.open("a", newline="") as file:
            shown = "" if val_miou is None else f"{val_miou:.5f}"
            csv.writer(file).writerow((step, epoch, f"{loss:.5f}", f"{lr:.3e}", shown))

    @staticmethod
    def rows(path: Path) -> list[dict[str, str]]:
        """The rows of a log, or none when there is no file."""
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return list(csv.DictReader(file))


class Progressing:
    """Tells how a run goes on: a bar on a terminal, else a line each `every` seconds."""

    def __init__(self, console: Console, steps: int, first_step: int, every: float = 30.0) -> None:
        self.console, self.steps, self.every = console, steps, every
        self.first_step, self.started, self.told = first_step, time.monotonic(), 0.0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task("training", total=steps, completed=first_step)

    def step(self, step: int, loss: float) -> None:
        """After each step; `step` counts from 1."""
        self.bar.update(self.task, completed=step, description=f"loss {loss:.3f}")
        now = time.monotonic()
        if not self.console.is_terminal and now - self.told >= self.every:
            self.told = now
            pace = (now - self.started) / max(1, step - self.first_step)
            left = pace * (self.steps - step) / 60
            self.say(f"step {step}/{self.steps} loss {loss:.3f}, {pace:.2f} s a step, {left:.0f} min left")

    def say(self, line: str) -> None:
        """A line above the bar."""
        self.console.print(line, highlight=False, soft_wrap=True)


@contextmanager
def progressing(console: Console, steps: int, first_step: int) -> Iterator[Progressing]:
    """A Progressing whose bar is shown meanwhile."""
    progress = Progressing(console, steps, first_step)
    with progress.bar:
        yield progress
