"""Which engine was the fastest on this processor, kept beside the compiled models, so that it is measured only once.

One small JSON file for each combination of what the times depend on: processor, number of cores and threads, OpenVINO,
this package's code, model, size. Its name is a hash of all of these.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from service.engines.openvino.compile_cache import source_digest
from service.files import atomic_replace

_PACKAGE: Final = Path(__file__).parent


class SpeedRecord:
    """Milliseconds of an inference by the engine's name, as measured once."""

    def __init__(self, folder: Path | None, *inputs: object) -> None:
        """folder: where the file lies; None, or a folder that can't be written, keeps nothing.

        inputs: what the times depend on beside the processor's cores and the installed OpenVINO: values with a stable
        repr.
        """
        import openvino  # noqa: PLC0415 - optional

        core = openvino.Core()
        processor = core.get_property("CPU", "FULL_DEVICE_NAME"), core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        known = repr((openvino.__version__, processor, cores, inputs)).encode() + source_digest(_PACKAGE)
        self._path = folder and folder / f"{hashlib.sha256(known).hexdigest()[:32]}.speed.json"

    def load(self) -> dict[str, float] | None:
        """The measured times; None when there are none, or the file holds something else."""
        if self._path is None:
            return None
        try:
            times = {str(name): float(ms) for name, ms in json.loads(self._path.read_bytes()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return None
        return times if times and all(0 < ms < float("inf") for ms in times.values()) else None

    def store(self, times: Mapping[str, float]) -> None:
        """Write the times, if that is possible."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_replace(self._path, durable=False) as temporary:
                    temporary.write_text(json.dumps({name: round(ms, 2) for name, ms in times.items()}) + "\n")
