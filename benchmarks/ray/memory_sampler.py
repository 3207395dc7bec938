"""Memory of a Ray job while it runs: the driver, the workers, and Ray itself."""

import threading
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import process_tree

KINDS: Final = ("driver", "workers", "ray")
EVERY_S: Final = 0.5
POINTS: Final = 12  # of the reported curve


class RayMemory:
    """Samples a process and its descendants until it ends, in proportional megabytes (PSS).

    Memory that several processes map, such as Ray's object store, counts once in total.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._samples: list[dict[str, float]] = []
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def results(self) -> dict[str, Any]:
        """Wait for the process to end. peak_mb: of each kind. mb: the largest sample of each twelfth of the run."""
        self._thread.join()
        steps = [
            self._samples[len(self._samples) * n // POINTS :][: -(-len(self._samples) // POINTS)] for n in range(POINTS)
        ]
        return {
            "peak_mb": {kind: round(max(one[kind] for one in self._samples)) for kind in KINDS},
            "mb": {kind: [round(max(one[kind] for one in step)) for step in steps if step] for kind in KINDS},
        }

    def _sample(self) -> None:
        while Path(f"/proc/{self._pid}/status").exists():
            sample = dict.fromkeys(KINDS, 0.0)
            for pid in process_tree(self._pid):
                sample[self._kind(pid)] += _pss_mb(pid)
            if sample["driver"]:
                self._samples.append(sample)
            time.sleep(EVERY_S)

    def _kind(self, pid: int) -> str:
        if pid == self._pid:
            return "driver"
        return "workers" if _read(pid, "cmdline").startswith("ray::") else "ray"


def _pss_mb(pid: int) -> float:
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0  # it has just ended


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""
