"""The baseline without HTTP: decode, engine, encode, one image after the other in one thread.

    python -m benchmarks.server.no_http_baseline --shipped

The most that a server can reach when codecs and engine take turns on the cores; see compare_servers.py.
"""

import argparse
import json
import subprocess
import sys
import time
from statistics import median
from typing import Any

from benchmarks.harness import ROOT, SCENE, percentiles
from benchmarks.server.fake_engine_server import FakeEngine, manifest
from service.engines.selection import open_engines
from service.imaging.model_input import ImageLimits, open_image
from service.model_folder import manifest as manifests
from service.rendering import formats, media_types
from service.rendering.options import RenderOptions
from service.rendering.segmentation import Segmentation
from service.settings import Settings


class Baseline:
    """An engine in this process, and an image for it. infer_ms: of a fake engine; None for the shipped model."""

    def __init__(self, infer_ms: float | None) -> None:
        settings = Settings()
        self._model = manifests.load(settings.model) if infer_ms is None else manifest()
        self._engine = open_engines(settings, self._model)[0] if infer_ms is None else FakeEngine(infer_ms / 1e3)
        self._data = SCENE.read_bytes()
        for _ in range(5):
            self.one_image()

    def one_image(self) -> tuple[float, float]:
        """Milliseconds in the engine, and in total."""
        began = time.perf_counter()
        _, model_input = open_image(self._data, self._model.input.buckets, ImageLimits(10**9))
        pixels, before = model_input.tensor(0)[None], time.perf_counter()
        ids = self._engine.infer(pixels).ids
        engine_s = time.perf_counter() - before
        seg = Segmentation(self._model, None, model_input.assemble_ids(list(ids)), {}, began)
        formats.render(media_types.PNG, RenderOptions(), seg)
        return engine_s * 1e3, (time.perf_counter() - began) * 1e3

    def run(self, seconds: float) -> dict[str, Any]:
        """Medians over as many images as `seconds` allow."""
        times, until = list[tuple[float, float]](), time.perf_counter() + seconds
        cpu_s, began = time.process_time(), time.perf_counter()
        while time.perf_counter() < until:
            times.append(self.one_image())
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
        return {
            "responses_per_s": round(len(times) / took_s, 1),
            "goodput_per_s": round(len(times) / took_s, 1),
            "latency_ms": percentiles([total for _, total in times]),
            "engine_ms": round(median(engine_ms for engine_ms, _ in times), 3),
            "codec_ms": round(median(total - engine_ms for engine_ms, total in times), 3),
            "cpu_ms_per_image": round(cpu_s / len(times) * 1e3, 2),
            "engine": self._engine.name,
        }


def run_in_own_process(infer_ms: float | None, seconds: float) -> dict[str, Any]:
    """Baseline(infer_ms).run(seconds), in its own process."""
    engine = ["--shipped"] if infer_ms is None else ["--infer-ms", str(infer_ms)]
    command = [sys.executable, "-m", "benchmarks.server.no_http_baseline", "--seconds", str(seconds), *engine]
    results: dict[str, Any] = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    return results


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infer-ms", type=float, default=0.3)
    parser.add_argument("--shipped", action="store_true", help="the shipped model instead of a fake engine")
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    print(json.dumps(Baseline(None if options.shipped else options.infer_ms).run(options.seconds), indent=2))


if __name__ == "__main__":
    main()
