"""The shipped model for tests that need one: its files, and how many aggregations its network has."""

import shutil
from pathlib import Path

import onnx

from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint
from model_export.model_folder import writer
from service.model_folder import manifest as manifests
from service.settings import REPOSITORY

LITE = REPOSITORY / "weights" / "alignseg-lite"
NODES = ("AlignedAggregate", "AlignedContext")


def copy_networks(target: Path) -> None:
    """Copy model.json, the ONNX file and, where the folder has one, the checkpoint."""
    manifest = manifests.load(LITE)
    for role in manifest.files.keys() & {writer.ONNX, writer.CHECKPOINT}:
        shutil.copy(manifests.verified_file(LITE, manifest, role), target)
    shutil.copy(LITE / "model.json", target)


def network() -> AlignSeg:
    """The network with the shipped weights."""
    return checkpoint.load(writer.checkpoint_of(LITE, manifests.load(LITE)))


def aggregations(model: onnx.ModelProto) -> list[str]:
    """Types of the nodes that sample at learned offsets, in order: one of AlignCM, one of each AlignFA."""
    return [node.op_type for node in model.graph.node if node.op_type in NODES]


def samples(model: onnx.ModelProto) -> int:
    """How many maps they sample: two in AlignFA, one in AlignCM."""
    return sum(2 if name == "AlignedAggregate" else 1 for name in aggregations(model))
