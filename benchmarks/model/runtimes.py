"""Every runtime and precision on the same cores in one run, against a plain torch.onnx export.

    python -m benchmarks.model.runtimes [--model weights/alignseg-lite] [--rounds 5]
    python -m benchmarks.model.runtimes --max-isa AVX2
    python -m benchmarks.model.runtimes --root ../shared/camvid

A plain export is what a user gets from torch.onnx without this project (plain_export.py). The baseline is that of the
published decoder on the backbone `lite`, untrained: as fast as a trained one to 2 %. --max-isa limits OpenVINO to older
instructions, as on an older processor; ONNX Runtime has no such limit, so its rows stay those of this processor.

Rounds are interleaved, so that a busy minute affects all alike; medians are reported. latency: one image at a time on
all cores. throughput: one engine a core, each with one thread, all at once. pixels_agreeing: with the plain export of
the same network in ONNX Runtime. With --root only mIoU on CamVid val is measured and added to the results of the same
model; that takes minutes, and a busy machine is fine.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.harness import RESULTS, ROOT, report
from benchmarks.model.plain_export import PlainExport, PlainOpenVino, export_plain
from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint
from model_export.model_folder.writer import checkpoint_of
from service.engines import reference_check
from service.engines.onnxruntime.engine import ROLE, OnnxRuntimeEngine
from service.engines.openvino import quantization
from service.engines.openvino.engine import OpenVinoEngine, Precision, features
from service.model_folder import manifest as manifests
from service.model_folder.manifest import Manifest
from service.types import Engine, UInt8Array
from training.data.datasets import DATASETS
from training.evaluation.measure import evaluate
from training.evaluation.predictors import with_engine

BASELINE: Final = "ONNX Runtime, plain export of lite"
REFERENCE: Final = "ONNX Runtime, plain export"  # of the measured model
CORES, IMAGES = torch.get_num_threads(), 8  # images: of a round
Open = Callable[[int], Engine]  # the argument is the number of threads; 0: all cores


@dataclass
class Row:
    """Measurements of one engine."""

    name: str
    open: Open
    latency_s: list[float] = field(default_factory=list)
    throughput: list[float] = field(default_factory=list)  # images a second
    results: dict[str, float] = field(default_factory=dict)


def rows(lite: Path, plain: Path, folder: Path, manifest: Manifest) -> list[Row]:
    """The baseline, the plain export of the same network in both runtimes, then the shipped model in all."""
    shipped, sizes = manifests.verified_file(folder, manifest, ROLE), manifest.input.buckets[:1]
    ranges = None
    if quantization.ROLE in manifest.files:
        ranges = quantization.load(manifests.verified_file(folder, manifest, quantization.ROLE))
    exact: list[Precision] = ["float32", "bf16"] if features().bfloat16 else ["float32"]

    def openvino(kind: type[OpenVinoEngine], model: Path, precision: Precision) -> Open:
        return lambda threads: kind(model, precision=precision, ranges=ranges, threads=threads, sizes=sizes)

    engines = [Row(BASELINE, lambda threads: PlainExport(lite, threads))]
    engines.append(Row(REFERENCE, lambda threads: PlainExport(plain, threads)))
    engines += [Row(f"OpenVINO {p}, plain export", openvino(PlainOpenVino, plain, p)) for p in exact]
    engines += [Row("ONNX Runtime, shipped", lambda threads: OnnxRuntimeEngine(shipped, intra_op_threads=threads))]
    engines += [Row(f"OpenVINO {p}, shipped", openvino(OpenVinoEngine, shipped, p)) for p in exact]
    if ranges and features().avx2:
        engines.append(Row("OpenVINO int8, shipped", openvino(OpenVinoEngine, shipped, "int8")))
    return engines


def measure(engines: Sequence[Row], images: Sequence[UInt8Array], rounds: int) -> None:
    """Latency and throughput of each, round by round. images: (1, H, W, 3)."""
    alone = [row.open(0) for row in engines]
    one_a_core = [[row.open(1) for _ in range(CORES)] for row in engines]
    for engine in (*alone, *(one for several in one_a_core for one in several)):
        engine.infer(images[0])
    for _ in range(rounds):
        for row, engine, several in zip(engines, alone, one_a_core, strict=True):
            for image in images:
                began = time.perf_counter()
                engine.infer(image)
                row.latency_s.append(time.perf_counter() - began)
            row.throughput.append(at_once(several, images))


def at_once(engines: Sequence[Engine], images: Sequence[UInt8Array]) -> float:
    """Images a second of all engines together."""

    def work(engine: Engine) -> None:
        for image in images:
            engine.infer(image)

    threads = [threading.Thread(target=work, args=(engine,)) for engine in engines]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(engines) * len(images) / (time.perf_counter() - began)


def compare(engines: Sequence[Row], images: Sequence[UInt8Array]) -> None:
    """Share of pixels that agree with the first engine, the reference."""
    expected: list[UInt8Array] = []
    for row in engines:
        engine = row.open(0)
        ids = [engine.infer(image).ids for image in images]
        expected = expected or ids
        row.results["pixels_agreeing"] = round(float(np.mean([a == b for a, b in zip(ids, expected, strict=True)])), 6)
        engine.close()


def miou(row: Row, manifest: Manifest, root: Path) -> float:
    """In percent, on CamVid val."""
    dataset, engine = DATASETS["camvid"], row.open(0)
    confusion = evaluate(with_engine(engine, manifest.input.buckets[:1]), dataset, dataset.pairs(root, "val"))
    engine.close()
    return round(100 * confusion.miou, 2)


def previous(name: str, model: str) -> dict[str, dict[str, float]]:
    """Results of the same model file in the report of this name."""
    path = RESULTS / f"{name}.json"
    report = json.loads(path.read_bytes()) if path.is_file() else {}
    return report.get("engines", {}) if report.get("onnx") == model else {}


def table(engines: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Results by name. throughput_ratio: of the better of 1 / latency and throughput, to that of the baseline."""

    def best(row: Row) -> float:
        return max(1 / statistics.median(row.latency_s), statistics.median(row.throughput))

    return {
        row.name: {
            "latency_ms": round(1e3 * statistics.median(row.latency_s), 1),
            "throughput_per_s": round(statistics.median(row.throughput), 1),
            "latency_ratio": round(statistics.median(engines[0].latency_s) / statistics.median(row.latency_s), 2),
            "throughput_ratio": round(best(row) / best(engines[0]), 2),
            **row.results,
        }
        for row in engines
    }


def plot(results: dict[str, dict[str, float]], path: Path) -> None:
    """Bars: throughput relative to the plain export."""
    names, ratios = list(results), [row["throughput_ratio"] for row in results.values()]
    figure = Figure(figsize=(8, 0.5 * len(names) + 1), layout="constrained")
    axes = figure.subplots()
    axes.bar_label(axes.barh(names, ratios, color="#4063a0"), fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("throughput, relative to the plain export of lite in ONNX Runtime")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print, write runtimes.json and runtimes.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "weights" / "alignseg-lite")
    parser.add_argument("--root", type=Path, help="CamVid: measure mIoU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-isa", default="", help="oneDNN's limit, such as AVX2 or AVX512_CORE_VNNI")
    parser.add_argument("--note", default="", help="a remark on the machine, kept with the result")
    options = parser.parse_args()
    if options.max_isa:  # read by oneDNN at its first use
        os.environ["ONEDNN_MAX_CPU_ISA"] = options.max_isa
    name = "-".join(["runtimes", *options.max_isa.lower().split("_")]).rstrip("-")
    manifest = manifests.load(options.model)
    bucket = manifest.input.buckets[0]
    scene = reference_check.street_scene(bucket)
    images = [np.ascontiguousarray(np.roll(scene, 40 * i, axis=2)) for i in range(IMAGES)]
    onnx = manifest.files[ROLE].sha256
    known = previous(name, onnx)
    with tempfile.TemporaryDirectory() as folder:
        lite, plain = Path(folder) / "lite.onnx", Path(folder) / "plain.onnx"
        export_plain(AlignSeg("lite", len(manifest.classes)), lite, bucket)
        export_plain(checkpoint.load(checkpoint_of(options.model, manifest)), plain, bucket)
        engines = rows(lite, plain, options.model, manifest)
        if options.root:
            accuracy = {row.name: {"miou": miou(row, manifest, options.root)} for row in engines[1:]}
            results = {row.name: known.get(row.name, {}) | accuracy.get(row.name, {}) for row in engines}
        else:
            compare(engines[1:], images)
            measure(engines, images, options.rounds)
            results = {engine: known.get(engine, {}) | row for engine, row in table(engines).items()}
    for engine, row in results.items():
        print(f"{engine:34} " + "  ".join(f"{key} {value:g}" for key, value in row.items()))
    RESULTS.mkdir(exist_ok=True)
    if all("throughput_ratio" in row for row in results.values()):
        plot(results, RESULTS / f"{name}.png")
    versions: dict[str, Any] = {package: version(package) for package in ("onnxruntime", "openvino", "torch")}
    about: dict[str, Any] = {
        "note": options.note,
        "model": f"{manifest.name} {manifest.version}",
        "onnx": onnx,
        "bucket": list(bucket),
    }
    about |= {"features": features()._asdict(), "max_isa": options.max_isa or None}
    report(name, {**about, "cores": CORES, "rounds": options.rounds, "runtimes": versions, "engines": results})


if __name__ == "__main__":
    main()
