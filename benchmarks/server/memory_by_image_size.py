"""Memory of the shipped server by image size: resident megabytes at rest, at the peak of a load, and afterwards.

    python -m benchmarks.server.memory_by_image_size

16 clients in a closed loop, JPEGs of 0.2, 2 and 12 megapixels; responses are the mask (PNG) or the overlay (JPEG), for
which the server keeps the pixels. Each row has a server of its own.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from PIL import Image

from benchmarks.harness import SCENE, load, report, serving, shipped

SIZES: Final = ((480, 360), (1920, 1080), (4000, 3000))  # (width, height)
FORMATS: Final = ("image/png", "image/jpeg")
CLIENTS: Final = 16


def row(size: tuple[int, int], accept: str, seconds: float) -> dict[str, Any]:
    """Memory of one server under one load."""
    with tempfile.TemporaryDirectory() as folder, serving(shipped()) as server:
        body = Path(folder) / "image.jpg"
        Image.open(SCENE).resize(size, Image.Resampling.BICUBIC).save(body, quality=90)
        time.sleep(2.0)
        rest_mb = server.rss()
        result = load(server.port, clients=CLIENTS, seconds=seconds, body=body, accept=accept)
        peak_mb = server.peak_rss()
        time.sleep(2.0)
        memory = {"at_rest": rest_mb, "peak": peak_mb, "afterwards": server.rss()}
    return {
        "size": list(size),
        "accept": accept,
        "memory_mb": {name: round(mb, 1) for name, mb in memory.items()},
        "statuses": {str(status): result["status"].count(status) for status in sorted(set(result["status"]))},
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    seconds = parser.parse_args().seconds
    rows = [row(size, accept, seconds) for size in SIZES for accept in FORMATS]
    for one in rows:
        print(one)
    report("memory-by-image-size", {"clients": CLIENTS, "rows": rows})


if __name__ == "__main__":
    main()
