"""Progress of a TensorRT build, and Ctrl-C during it: a build is one call that takes minutes."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from model_export.tensorrt_build.library import Library

_EVERY_S: Final = 5.0
Report = Callable[[str], None]


@dataclass(slots=True)
class _Phase:
    name: str
    steps: int
    done: int = 0


class Progress:
    """The phases that TensorRT has reported. They nest: a phase is part of its parent's current step."""

    def __init__(self, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self.stopped = False
        self._report, self._clock = report, clock
        self._began = self._reported = clock()
        self._open: list[_Phase] = []  # the outermost first

    @property
    def share(self) -> float:
        """How much of the whole build is done, 0..1."""
        share, width = 0.0, 1.0
        for phase in self._open:
            width /= max(1, phase.steps)
            share += width * min(phase.done, phase.steps)
        return min(share, 1.0)

    def start(self, name: str, steps: int) -> None:
        """A phase begins."""
        self._open.append(_Phase(name, steps))

    def step(self, name: str, done: int) -> bool:
        """Step number `done`, counted from 0, is finished. Returns whether to continue the build."""
        phase = next((phase for phase in reversed(self._open) if phase.name == name), None)
        if phase is not None:
            phase.done = done + 1
        self._report_sometimes()
        return not self.stopped

    def finish(self, name: str) -> None:
        """A phase ends."""
        self._open = [phase for phase in self._open if phase.name != name]

    def _report_sometimes(self) -> None:
        now = self._clock()
        if self._open and now - self._reported >= _EVERY_S:
            self._reported = now
            self._report(f"{100 * self.share:.0f} %, {now - self._began:.0f} s: {self._open[-1].name.lower()}")


@contextmanager
def report_progress(library: Library, config: Any, report: Report) -> Iterator[None]:
    """Report the build with `config` every five seconds. Ctrl-C stops it and raises KeyboardInterrupt."""
    progress = Progress(report)

    def stop(number: int, frame: FrameType | None) -> None:
        progress.stopped = True

    config.progress_monitor = monitor = _monitor(library.trt, progress)
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except RuntimeError:
        if not progress.stopped:
            raise
    finally:
        signal.signal(signal.SIGINT, before)
        del monitor  # must not be freed before the build ends
    if progress.stopped:
        raise KeyboardInterrupt


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()
