"""Every runtime, precision and rewrite on the same cores in one run, against a straight torch.onnx export.

    python -m benchmarks.engines [--model weights/alignseg-lite] [--rounds 5]
    python -m benchmarks.engines --root ../shared/camvid

The straight export is what a user gets from torch.onnx without this project: the network's own modules, GridSample as
PyTorch writes it, in ONNX Runtime with its default options. Rounds are interleaved, so that a busy minute hits all
alike; medians. latency: one picture at a time on all cores. throughput: an engine a core, each with one thread, all at
once. pixels_agreeing is against the straight export in ONNX Runtime. With --root, mIoU on CamVid val is measured and no
time, and joins the figures of the same model in engines.json; it takes minutes, and a busy machine does not matter.
"""

import argparse
import json
import logging
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from matplotlib.figure import Figure

from benchmarks.harness import RESULTS, ROOT, report
from model_export import checkpoint
from model_export.model_folder import checkpoint_of
from model_export.serving_module import ServingModule
from service import manifest as manifests
from service.contracts import Engine, Inference, UInt8Array
from service.engines import openvino_int8, self_test
from service.engines.onnx_runtime import CLASS_MAP, ROLE, OnnxRuntimeEngine
from service.engines.openvino import OpenVinoEngine, Precision, computes_bf16
from service.manifest import Manifest
from training.datasets import DATASETS
from training.evaluate import evaluate
from training.predict import with_engine

BASELINE: Final = "ONNX Runtime, straight export"
CORES: Final = torch.get_num_threads()
PICTURES: Final = 8  # a round
Open = Callable[[int], Engine]  # with so many threads; 0: all cores


class Straight:
    """ONNX Runtime as its documentation shows it; the engine of the product turns thread spinning off."""

    name, max_batch, has_confidence = "straight", 1, False

    def __init__(self, model: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        """Class maps alone."""
        return Inference(self._session.run([CLASS_MAP], {"pictures": batch})[0])

    def close(self) -> None:
        """Nothing is held that the garbage collector would not find."""


class StraightOpenVino(OpenVinoEngine):
    """OpenVINO with one of its own precision hints, and no rewrite of the product's."""

    def _read(self) -> Any:
        return self._core.read_model(self._path)


@dataclass
class Row:
    """What is measured of one engine."""

    name: str
    open: Open
    latency_s: list[float] = field(default_factory=list)
    throughput: list[float] = field(default_factory=list)  # pictures a second
    figures: dict[str, float] = field(default_factory=dict)


def export_straight(network: torch.nn.Module, path: Path) -> None:
    """torch.onnx.export of the network as it is, dynamic sizes, no rewrite, no function of ours."""
    dynamic = torch.export.Dim.AUTO
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own deprecations
        program = torch.onnx.export(
            ServingModule(network),  # type: ignore[arg-type]
            (torch.zeros(2, 97, 131, 3, dtype=torch.uint8),),
            dynamo=True,
            opset_version=18,
            input_names=["pictures"],
            output_names=[CLASS_MAP, "logits"],
            dynamic_shapes=({0: dynamic, 1: dynamic, 2: dynamic},),
            verbose=False,
        )
    assert program is not None  # noqa: S101
    program.save(path)


def rows(straight: Path, folder: Path, manifest: Manifest) -> list[Row]:
    """The straight export in both runtimes, then what this project makes of the network."""
    shipped, sizes = manifests.verified_file(folder, manifest, ROLE), manifest.input.buckets[:1]
    ranges = None
    if openvino_int8.ROLE in manifest.files:
        ranges = openvino_int8.load(manifests.verified_file(folder, manifest, openvino_int8.ROLE))
    exact: list[Precision] = ["float32", "bf16"] if computes_bf16() else ["float32"]

    def openvino(kind: type[OpenVinoEngine], model: Path, precision: Precision) -> Open:
        return lambda threads: kind(model, precision=precision, ranges=ranges, threads=threads, sizes=sizes)

    made = [Row(BASELINE, lambda threads: Straight(straight, threads))]
    made += [Row(f"OpenVINO {p}, straight export", openvino(StraightOpenVino, straight, p)) for p in exact]
    made += [Row("ONNX Runtime, shipped", lambda threads: OnnxRuntimeEngine(shipped, intra_op_threads=threads))]
    made += [Row(f"OpenVINO {p}, shipped", openvino(OpenVinoEngine, shipped, p)) for p in exact]
    if ranges and len(exact) > 1:
        made.append(Row("OpenVINO int8, shipped", openvino(OpenVinoEngine, shipped, "int8")))
    return made


def measure(found: Sequence[Row], pictures: Sequence[UInt8Array], rounds: int) -> None:
    """Latency and throughput of each, round by round. pictures: (1, H, W, 3)."""
    alone = [row.open(0) for row in found]
    narrow = [[row.open(1) for _ in range(CORES)] for row in found]
    for engine in (*alone, *(one for several in narrow for one in several)):
        engine.infer(pictures[0])
    for _ in range(rounds):
        for row, engine, several in zip(found, alone, narrow, strict=True):
            for picture in pictures:
                began = time.perf_counter()
                engine.infer(picture)
                row.latency_s.append(time.perf_counter() - began)
            row.throughput.append(at_once(several, pictures))


def at_once(engines: Sequence[Engine], pictures: Sequence[UInt8Array]) -> float:
    """Pictures a second of all engines together."""

    def work(engine: Engine) -> None:
        for picture in pictures:
            engine.infer(picture)

    threads = [threading.Thread(target=work, args=(engine,)) for engine in engines]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(engines) * len(pictures) / (time.perf_counter() - began)


def compare(found: Sequence[Row], pictures: Sequence[UInt8Array]) -> None:
    """Agreement with the baseline."""
    expected: list[UInt8Array] = []
    for row in found:
        engine = row.open(0)
        ids = [engine.infer(picture).ids for picture in pictures]
        expected = expected or ids
        row.figures["pixels_agreeing"] = round(float(np.mean([a == b for a, b in zip(ids, expected, strict=True)])), 6)
        engine.close()


def miou(row: Row, manifest: Manifest, root: Path) -> float:
    """In percent, on CamVid val."""
    dataset, engine = DATASETS["camvid"], row.open(0)
    confusion = evaluate(with_engine(engine, manifest.input.buckets[:1]), dataset, dataset.pairs(root, "val"))
    engine.close()
    return round(100 * confusion.miou, 2)


def kept(model: str) -> dict[str, dict[str, float]]:
    """What engines.json tells of the same model file."""
    path = RESULTS / "engines.json"
    told = json.loads(path.read_bytes()) if path.is_file() else {}
    return told.get("engines", {}) if told.get("onnx") == model else {}


def table(found: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Figures by name, with the ratio of the better pictures a second to the baseline's better."""

    def best(row: Row) -> float:
        return max(1 / statistics.median(row.latency_s), statistics.median(row.throughput))

    return {
        row.name: {
            "latency_ms": round(1e3 * statistics.median(row.latency_s), 1),
            "throughput_per_s": round(statistics.median(row.throughput), 1),
            "latency_ratio": round(statistics.median(found[0].latency_s) / statistics.median(row.latency_s), 2),
            "throughput_ratio": round(best(row) / best(found[0]), 2),
            **row.figures,
        }
        for row in found
    }


def plot(figures: dict[str, dict[str, float]], path: Path) -> None:
    """Bars: times the pictures a second of the straight export."""
    names, ratios = list(figures), [row["throughput_ratio"] for row in figures.values()]
    figure = Figure(figsize=(8, 0.5 * len(names) + 1), layout="constrained")
    axes = figure.subplots()
    axes.bar_label(axes.barh(names, ratios, color="#4063a0"), fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("pictures a second, relative to the straight export in ONNX Runtime")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print, write engines.json and engines.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "weights" / "alignseg-lite")
    parser.add_argument("--root", type=Path, help="CamVid: measure mIoU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--note", default="", help="what a reader of the result should know of the machine")
    options = parser.parse_args()
    manifest = manifests.load(options.model)
    bucket = manifest.input.buckets[0]
    pictures = [np.ascontiguousarray(np.roll(self_test.street(bucket), 40 * i, axis=2)) for i in range(PICTURES)]
    onnx = manifest.files[ROLE].sha256
    known = kept(onnx)
    with tempfile.TemporaryDirectory() as folder:
        straight = Path(folder) / "straight.onnx"
        export_straight(checkpoint.load(checkpoint_of(options.model, manifest)), straight)
        found = rows(straight, options.model, manifest)
        if options.root:
            figures = {
                row.name: {**known.get(row.name, {}), "miou": miou(row, manifest, options.root)} for row in found
            }
        else:
            compare(found, pictures)
            measure(found, pictures, options.rounds)
            figures = {name: {**known.get(name, {}), **row} for name, row in table(found).items()}
    for name, row in figures.items():
        print(f"{name:34} " + "  ".join(f"{key} {value:g}" for key, value in row.items()))
    RESULTS.mkdir(exist_ok=True)
    if all("throughput_ratio" in row for row in figures.values()):
        plot(figures, RESULTS / "engines.png")
    runtimes: dict[str, Any] = {name: version(name) for name in ("onnxruntime", "openvino", "torch")}
    about = {"note": options.note, "model": f"{manifest.name} {manifest.version}", "onnx": onnx, "bucket": list(bucket)}
    report("engines", {**about, "cores": CORES, "rounds": options.rounds, "runtimes": runtimes, "engines": figures})


if __name__ == "__main__":
    main()
