"""A job of `alignseg segment --ray` in a process of its own, in small pieces so that it can be interrupted in between.

python -m tests.ray.job SOURCE OUT png|rle [HOLD]
"""

import sys
import time
from typing import Any

from rich.console import Console

from service.ray_serve import cluster  # noqa: F401 - sets what Ray reads when it is imported
from service.types import UInt8Array

from alignseg_serve.ray_job import job as bulk  # isort: skip
from service.model_folder.manifest import Manifest
from service.settings import Settings
from tests.support.fake_engine import FakeEngine, manifest


class EngineFactory:
    """Opens engines that do `hold` pictures and then none, so that an interruption finds something to interrupt."""

    def __init__(self, hold: int | None = None) -> None:
        self._left = hold

    def __call__(self, settings: Settings, model: Manifest) -> FakeEngine:
        return FakeEngine(before=self._count)

    def _count(self, batch: UInt8Array) -> None:
        if self._left is not None:
            if self._left <= 0:
                time.sleep(100)
            self._left -= len(batch)


def main(source: str, out: str, masks: Any, hold: str | None = None) -> int:
    bulk.IMAGES_PER_TASK, bulk.ROWS_PER_FILE = 8, 16  # type: ignore[misc]
    console, engine_factory = Console(file=sys.stderr, width=200), EngineFactory(int(hold) if hold else None)
    return bulk.run(source, out, Settings(), console, masks=masks, engine_factory=engine_factory, manifest=manifest())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
