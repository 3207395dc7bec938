"""The model behind every peer: the model folder's ONNX file as a user would open it, or the fake engine."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from benchmarks.server.fake_engine_server import BUCKET, COLORS, FakeEngine
from service.types import CLASS_MAP


@dataclass(frozen=True, slots=True)
class Peer:
    """infer: (N, H, W, 3) uint8 RGB -> (N, H, W) uint8 ids. size: the network's (width, height). palette: RGB by id."""

    infer: Callable[[Any], Any]
    size: tuple[int, int]
    palette: bytes


def open_model(folder: Path) -> Peer:
    """ONNX Runtime with its defaults."""
    manifest = json.loads((folder / "model.json").read_text())
    session = onnxruntime.InferenceSession(
        folder / manifest["files"]["onnx"]["path"], providers=["CPUExecutionProvider"]
    )
    name, (height, width) = session.get_inputs()[0].name, manifest["input"]["buckets"][0]
    palette = bytes(value for entry in manifest["classes"] for value in entry["color"])
    return Peer(lambda batch: session.run([CLASS_MAP], {name: batch})[0], (width, height), palette)


def fake(infer_ms: float) -> Peer:
    """The same fake engine as our own server has."""
    engine = FakeEngine(infer_ms / 1e3)
    return Peer(lambda batch: engine.infer(batch).ids, BUCKET[::-1], bytes(v for rgb in COLORS.values() for v in rgb))


def from_command_line(description: str | None) -> tuple[Peer, int]:
    """The model that the command line names, and the port."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder with a model.json")
    parser.add_argument("--infer-ms", type=float, default=0.3, help="of the fake engine, without --model")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    return open_model(options.model) if options.model else fake(options.infer_ms), options.port
