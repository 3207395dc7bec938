"""A real model folder with a real ONNX file, written in milliseconds: each pixel's class is its strongest channel."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from service.model_folder.manifest import FILE_NAME, ClassEntry, FileEntry, Manifest
from service.types import CLASS_MAP, LOGITS, PICTURES, Size
from tests.support import fake_engine

CLASSES = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def write(folder: Path, buckets: tuple[Size, ...] = ((48, 64), (64, 48)), *, confidence: bool = True) -> Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(strongest_color(confidence=confidence), path)
    manifest = fake_engine.manifest(buckets).model_copy(
        update={
            "name": "tiny",
            "architecture": fake_engine.manifest().architecture.model_copy(update={"num_classes": len(CLASSES)}),
            "classes": tuple(ClassEntry(name=n, color=c) for n, c in CLASSES.items()),
            "files": {"onnx": FileEntry.of(path, folder)},
        }
    )
    (folder / FILE_NAME).write_text(manifest.model_dump_json(indent=2))
    return manifest


def strongest_color(element: int = TensorProto.UINT8, *, confidence: bool = False) -> onnx.ModelProto:
    """confidence: adds the logits output, which has the channels' values."""
    nodes = [
        helper.make_node("Cast", [PICTURES], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ArgMax", ["floats"], ["ids"], axis=3, keepdims=0),
        helper.make_node("Cast", ["ids"], [CLASS_MAP], to=element),
    ]
    images = helper.make_tensor_value_info(PICTURES, element, ["N", "H", "W", 3])
    class_map = helper.make_tensor_value_info(CLASS_MAP, element, ["N", "H", "W"])
    graph = helper.make_graph(nodes, "strongest_color", [images], [class_map])
    if confidence:
        _add_logits(graph)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _add_logits(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Transpose", ["floats"], [LOGITS], perm=[0, 3, 1, 2]))
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["N", 3, "H", "W"]))
