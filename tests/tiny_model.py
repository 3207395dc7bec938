"""A real model folder with a real ONNX file, made in milliseconds: each pixel's class is its strongest colour."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from service.manifest import FILE_NAME, ClassEntry, FileEntry, Manifest
from tests import fakes

CLASSES = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def write(
    folder: Path, buckets: tuple[tuple[int, int], ...] = ((48, 64), (64, 48)), *, confidence: bool = True
) -> Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(strongest_colour(confidence=confidence), path)
    manifest = fakes.manifest(buckets).model_copy(
        update={
            "name": "tiny",
            "architecture": fakes.manifest().architecture.model_copy(update={"num_classes": len(CLASSES)}),
            "classes": tuple(ClassEntry(name=n, color=c) for n, c in CLASSES.items()),
            "files": {"onnx": FileEntry.of(path, folder)},
        }
    )
    (folder / FILE_NAME).write_text(manifest.model_dump_json(indent=2))
    return manifest


def strongest_colour(element: int = TensorProto.UINT8, *, confidence: bool = False) -> onnx.ModelProto:
    """confidence: adds that output, the softmax over the colours' values at the strongest one."""
    nodes = [
        helper.make_node("Cast", ["pictures"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ArgMax", ["floats"], ["ids"], axis=3, keepdims=0),
        helper.make_node("Cast", ["ids"], ["class_map"], to=element),
    ]
    picture = helper.make_tensor_value_info("pictures", element, ["N", "H", "W", 3])
    class_map = helper.make_tensor_value_info("class_map", element, ["N", "H", "W"])
    graph = helper.make_graph(nodes, "strongest_colour", [picture], [class_map])
    if confidence:
        _add_confidence(graph)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _add_confidence(graph: onnx.GraphProto) -> None:
    graph.node.extend(
        [
            helper.make_node("Softmax", ["floats"], ["probabilities"], axis=3),
            helper.make_node("ReduceMax", ["probabilities", "last"], ["chosen"], keepdims=0),
            helper.make_node("Mul", ["chosen", "255"], ["scaled"]),
            helper.make_node("Round", ["scaled"], ["rounded"]),
            helper.make_node("Cast", ["rounded"], ["confidence"], to=TensorProto.UINT8),
        ]
    )
    last = helper.make_tensor("last", TensorProto.INT64, [1], [3])
    graph.initializer.extend([last, helper.make_tensor("255", TensorProto.FLOAT, [], [255.0])])
    graph.output.append(helper.make_tensor_value_info("confidence", TensorProto.UINT8, ["N", "H", "W"]))
