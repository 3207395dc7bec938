"""What a job on Ray holds in memory while it runs: its own process, the workers, and what Ray keeps itself."""

import threading
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import family

KINDS: Final = ("driver", "workers", "ray")
EVERY_S: Final = 0.5
POINTS: Final = 12  # of the curve that is written down


class RayMemory:
    """Samples a process and all that descend from it until it ends, in proportional megabytes (PSS).

    What several map, such as Ray's object store, is so counted once in all.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._samples: list[dict[str, float]] = []
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def told(self) -> dict[str, Any]:
        """Once the process has ended. peak_mb: of each kind. mb: the highest in each twelfth of the run, in order."""
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
            found = dict.fromkeys(KINDS, 0.0)
            for pid in family(self._pid):
                found[self._kind(pid)] += _pss_mb(pid)
            if found["driver"]:
                self._samples.append(found)
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
