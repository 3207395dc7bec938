"""Generated images with smooth shapes and edges, so that sampling matters."""

import numpy as np

from service.types import UInt8Array


def frames() -> list[UInt8Array]:
    """Two (240, 320, 3) uint8 RGB images."""
    y, x = np.mgrid[0:240, 0:320]
    waves = np.stack([127 + 120 * np.sin(x / 17 + y / 31), 0.8 * y, 255 * ((x // 40 + y // 30) % 2)], axis=2)
    rng = np.random.default_rng(5)
    discs = np.zeros((240, 320, 3))
    for _ in range(25):
        cx, cy, r = rng.uniform(0, 320), rng.uniform(0, 240), rng.uniform(8, 50)
        discs[(x - cx) ** 2 + (y - cy) ** 2 < r * r] = rng.uniform(0, 255, 3)
    return [waves.astype(np.uint8), discs.astype(np.uint8)]
