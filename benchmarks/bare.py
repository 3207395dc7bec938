"""The bare road: decode, engine, encode, one picture after the other in one thread, without a server.

    python -m benchmarks.bare --shipped

What a server can reach at best when codecs and engine take turns on the cores; see benchmarks/server.py.
"""

import argparse
import json
import subprocess
import sys
import time
from statistics import median
from typing import Any

from benchmarks.harness import ROOT, SCENE, percentiles
from benchmarks.stand_in import StandInEngine, manifest
from service import answers, media
from service import manifest as manifests
from service.contracts import Engine
from service.engines.select import open_engines
from service.manifest import Manifest
from service.segmentation import Segmentation
from service.settings import Settings
from service.views import PictureLimits, open_picture
from service.wishes import Wishes


def one_picture(engine: Engine, model: Manifest, data: bytes) -> tuple[float, float]:
    """Milliseconds in the engine, and in all."""
    began = time.perf_counter()
    _, seen = open_picture(data, model.input.buckets, PictureLimits(10**9))
    pixels, before = seen.tensor(0)[None], time.perf_counter()
    ids = engine.infer(pixels).ids
    engine_s = time.perf_counter() - before
    seg = Segmentation(model, None, seen.assemble(list(ids)), {}, began)
    answers.render(media.PNG, Wishes(), seg)
    return engine_s * 1e3, (time.perf_counter() - began) * 1e3


def run(infer_ms: float | None, seconds: float) -> dict[str, Any]:
    """Medians over as many pictures as fit into `seconds`."""
    settings = Settings()
    model = manifests.load(settings.model) if infer_ms is None else manifest()
    engine = open_engines(settings, model)[0] if infer_ms is None else StandInEngine(infer_ms / 1e3)
    data, times, until = SCENE.read_bytes(), list[tuple[float, float]](), time.perf_counter() + seconds
    for _ in range(5):
        one_picture(engine, model, data)
    cpu_s, began = time.process_time(), time.perf_counter()
    while time.perf_counter() < until:
        times.append(one_picture(engine, model, data))
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    totals = [total for _, total in times]
    return {
        "answers_a_second": round(len(times) / took_s, 1),
        "goodput_a_second": round(len(times) / took_s, 1),
        "answer_ms": percentiles(totals),
        "engine_ms": round(median(engine_ms for engine_ms, _ in times), 3),
        "codec_ms": round(median(total - engine_ms for engine_ms, total in times), 3),
        "cpu_ms_each": round(cpu_s / len(times) * 1e3, 2),
        "engine": engine.name,
    }


def bare_road(infer_ms: float | None, seconds: float) -> dict[str, Any]:
    """The same, in a process of its own."""
    asked = ["--shipped"] if infer_ms is None else ["--infer-ms", str(infer_ms)]
    command = [sys.executable, "-m", "benchmarks.bare", "--seconds", str(seconds), *asked]
    told: dict[str, Any] = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    return told


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infer-ms", type=float, default=0.3)
    parser.add_argument("--shipped", action="store_true", help="the shipped model in place of a stand-in")
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    print(json.dumps(run(None if asked.shipped else asked.infer_ms, asked.seconds), indent=2))


if __name__ == "__main__":
    main()
