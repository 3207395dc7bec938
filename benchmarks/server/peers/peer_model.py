"""What is behind every peer: the model folder's ONNX file as a user would open it, or the stand-in that takes time."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from benchmarks.server.fake_engine_server import BUCKET, COLORS, StandInEngine
from service.types import CLASS_MAP


@dataclass(frozen=True, slots=True)
class Peer:
    """infer: (N, H, W, 3) uint8 RGB -> (N, H, W) uint8 ids. size: the network's (width, height). palette: RGB by id."""

    infer: Callable[[Any], Any]
    size: tuple[int, int]
    palette: bytes


def open_model(folder: Path) -> Peer:
    """ONNX Runtime with its defaults."""
    told = json.loads((folder / "model.json").read_text())
    session = onnxruntime.InferenceSession(folder / told["files"]["onnx"]["path"], providers=["CPUExecutionProvider"])
    name, (height, width) = session.get_inputs()[0].name, told["input"]["buckets"][0]
    palette = bytes(value for entry in told["classes"] for value in entry["color"])
    return Peer(lambda batch: session.run([CLASS_MAP], {name: batch})[0], (width, height), palette)


def stand_in(infer_ms: float) -> Peer:
    """The same stand-in as in front of our own server."""
    engine = StandInEngine(infer_ms / 1e3)
    return Peer(lambda batch: engine.infer(batch).ids, BUCKET[::-1], bytes(v for rgb in COLORS.values() for v in rgb))


def from_command_line(told: str | None) -> tuple[Peer, int]:
    """The engine that the command line asks for, and the port."""
    parser = argparse.ArgumentParser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder with a model.json")
    parser.add_argument("--infer-ms", type=float, default=0.3, help="of a stand-in, where no model is given")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    return open_model(arguments.model) if arguments.model else stand_in(arguments.infer_ms), arguments.port
