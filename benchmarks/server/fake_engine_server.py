"""The server with a fake engine that only waits, so that everything but the engine is measured.

python -m benchmarks.server.fake_engine_server --infer-ms 0.3
"""

import argparse
import time
from functools import cache, partial
from typing import Final

import numpy as np

from service.app import create_app
from service.model_folder.manifest import Manifest
from service.server.server import Server
from service.settings import Settings
from service.telemetry import logs
from service.types import Inference, UInt8Array

BUCKET: Final = (360, 480)
COLORS: Final = {
    "sky": (128, 128, 128), "building": (128, 0, 0), "pole": (192, 192, 128), "road": (128, 64, 128),
    "pavement": (0, 0, 192), "tree": (128, 128, 0), "sign": (192, 128, 128), "fence": (64, 64, 128),
    "car": (64, 0, 128), "pedestrian": (64, 64, 0), "bicyclist": (0, 128, 192),
}  # fmt: skip


class FakeEngine:
    """Sleeps with the GIL released, as one waits for a GPU, and returns a street-like map of eleven classes.

    infer_s: seconds a call; each further image of the batch adds `growth` times that. first_s: of the first call.
    """

    name = "fake"
    has_confidence = False

    def __init__(self, infer_s: float, max_batch: int = 1, growth: float = 1.0, first_s: float | None = None) -> None:
        self.max_batch = max_batch
        self._infer_s = infer_s
        self._growth = growth
        self._next_s = infer_s if first_s is None else first_s

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        """See service.types.Engine."""
        time.sleep(self._next_s * (1 + self._growth * (len(batch) - 1)))
        self._next_s = self._infer_s
        ids = _street(batch.shape[1], batch.shape[2])
        return Inference(np.repeat(ids[None], len(batch), axis=0))

    def close(self) -> None:
        """Nothing to release."""


@cache
def _street(height: int, width: int) -> UInt8Array:
    """(H, W) uint8: bands with wavy edges and some boxes; a mask that compresses about as a real one."""
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    wave = y + 0.04 * np.sin(x * 17) + 0.02 * np.sin(x * 71)
    ids: UInt8Array = np.digitize(wave, [0.3, 0.5, 0.62, 0.9]).astype(np.uint8)
    for index in range(6):
        top, left = int(height * 0.45), int(width * (0.05 + 0.15 * index))
        ids[top : top + height // 5, left : left + width // 14] = 5 + index
    return ids


def manifest() -> Manifest:
    """A model with one bucket."""
    return Manifest.model_validate(
        {
            "name": "fake", "version": "1", "description": "waits", "trained_on": "nothing", "terms": "none",
            "architecture": {
                "backbone": "none", "num_classes": len(COLORS), "channels": 1, "sampling": "standard",
                "aux_head": False,
            },
            "classes": [{"name": name, "color": color} for name, color in COLORS.items()],
            "input": {"buckets": (BUCKET,)},
            "preprocessing": {"channel_order": "RGB", "mean": (0, 0, 0), "std": (1, 1, 1)},
            "files": {}, "built_by": "benchmarks/server/fake_engine_server.py", "built_with": {},
        }
    )  # fmt: skip


def main() -> None:
    """Command line. Everything else is read from ALIGNSEG_*, as shipped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infer-ms", type=float, default=0.3)
    parser.add_argument("--warm-ms", type=float, help="of the first call; default: as the others")
    parser.add_argument("--max-batch", type=int, default=1)
    parser.add_argument("--growth", type=float, default=1.0, help="cost of each further image of a batch, 0 to 1")
    parser.add_argument("--engines", type=int, default=1, help="number of engines, as of GPUs")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    settings = Settings(port=options.port)
    logs.configure(settings.log)
    first_s = None if options.warm_ms is None else options.warm_ms / 1e3
    one = partial(FakeEngine, options.infer_ms / 1e3, options.max_batch, options.growth, first_s)
    engines = [one() for _ in range(options.engines)]
    raise SystemExit(Server(create_app(settings, engines, manifest()), settings).run_until_stopped())


if __name__ == "__main__":
    main()
