"""Progress of a run: log.csv, a progress bar on a terminal, plain lines elsewhere."""

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
    """log.csv: one row per epoch. A resumed run first removes the rows of steps that it repeats."""

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
        """Append a row; val_miou is empty in epochs without evaluation."""
        if not self.writes:
            return
        with self.path.open("a", newline="") as file:
            miou = "" if val_miou is None else f"{val_miou:.5f}"
            csv.writer(file).writerow((step, epoch, f"{loss:.5f}", f"{lr:.3e}", miou))

    @staticmethod
    def rows(path: Path) -> list[dict[str, str]]:
        """The rows of a log; none when the file does not exist."""
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return list(csv.DictReader(file))


class ProgressDisplay:
    """Shows a run's progress: a bar on a terminal, elsewhere a line every `interval_s` seconds."""

    def __init__(self, console: Console, steps: int, first_step: int, interval_s: float = 30.0) -> None:
        self.console, self.steps, self.interval_s = console, steps, interval_s
        self.first_step, self.started, self.last_line = first_step, time.monotonic(), 0.0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task("training", total=steps, completed=first_step)

    def step(self, step: int, loss: float) -> None:
        """Update after a step; `step` counts from 1."""
        self.bar.update(self.task, completed=step, description=f"loss {loss:.3f}")
        now = time.monotonic()
        if not self.console.is_terminal and now - self.last_line >= self.interval_s:
            self.last_line = now
            seconds_per_step = (now - self.started) / max(1, step - self.first_step)
            minutes_left = seconds_per_step * (self.steps - step) / 60
            self.print(
                f"step {step}/{self.steps} loss {loss:.3f}, {seconds_per_step:.2f} s/step, {minutes_left:.0f} min left"
            )

    def print(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(line, highlight=False, soft_wrap=True)


@contextmanager
def progress_display(console: Console, steps: int, first_step: int) -> Iterator[ProgressDisplay]:
    """A ProgressDisplay whose bar is visible inside the context."""
    progress = ProgressDisplay(console, steps, first_step)
    with progress.bar:
        yield progress
