"""A job of `alignseg segment --ray` in a process of its own, in small pieces so that it can be interrupted in between.

python -m tests.fleet.job SOURCE OUT png|rle
"""

import sys
from typing import Any

from rich.console import Console

from service.fleet import cluster  # noqa: F401 - sets what Ray reads when it is imported

from alignseg_serve.bulk import run as bulk  # isort: skip
from service.manifest import Manifest
from service.settings import Settings
from tests.fakes import FakeEngine, manifest


def opener(settings: Settings, model: Manifest) -> FakeEngine:
    return FakeEngine()


def main(source: str, out: str, masks: Any) -> int:
    bulk.AT_ONCE, bulk.A_FILE = 8, 16  # type: ignore[misc]
    return bulk.run(
        source, out, Settings(), Console(file=sys.stderr, width=200), masks=masks, opener=opener, manifest=manifest()
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
