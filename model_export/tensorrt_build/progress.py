"""How far a TensorRT build is, and its end by Ctrl-C: minutes inside one call that otherwise says and hears nothing."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from model_export.tensorrt_build.library import Library

_EVERY_S: Final = 5.0
Say = Callable[[str], None]


@dataclass(slots=True)
class _Phase:
    name: str
    steps: int
    done: int = 0


class Progress:
    """What TensorRT told so far. Phases nest: one is a part of the step that its parent is at."""

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self.stopped = False
        self._say, self._clock = say, clock
        self._began = self._said = clock()
        self._open: list[_Phase] = []  # the outermost first

    @property
    def share(self) -> float:
        """Of the whole build, 0..1."""
        share, width = 0.0, 1.0
        for phase in self._open:
            width /= max(1, phase.steps)
            share += width * min(phase.done, phase.steps)
        return min(share, 1.0)

    def start(self, name: str, steps: int) -> None:
        """A phase begins."""
        self._open.append(_Phase(name, steps))

    def step(self, name: str, done: int) -> bool:
        """One step of it is done, the number `done` from 0; whether to go on."""
        phase = next((phase for phase in reversed(self._open) if phase.name == name), None)
        if phase is not None:
            phase.done = done + 1
        self._tell()
        return not self.stopped

    def finish(self, name: str) -> None:
        """A phase ends."""
        self._open = [phase for phase in self._open if phase.name != name]

    def _tell(self) -> None:
        now = self._clock()
        if self._open and now - self._said >= _EVERY_S:
            self._said = now
            self._say(f"{100 * self.share:.0f} %, {now - self._began:.0f} s: {self._open[-1].name.lower()}")


@contextmanager
def following(library: Library, config: Any, say: Say) -> Iterator[None]:
    """Have the build with `config` tell its progress. Ctrl-C ends it, and then raises KeyboardInterrupt."""
    progress = Progress(say)

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
        del monitor  # it had to outlive the build
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
