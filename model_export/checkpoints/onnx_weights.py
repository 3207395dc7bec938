"""A network's weights from its own ONNX export, so that a model folder needs no second copy of them.

Initialisers keep the state dict's names (see onnx_export/node_names.py), and the export writes the architecture into
the file's metadata. The auxiliary head of training is not exported. The published decoder's offset generators are
exported merged, so only networks with the slim decoder can be read back.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, numpy_helper
from torch import Tensor

from model_export.alignseg import Architecture

ARCHITECTURE = "alignseg.architecture"
_HALF = ".half"  # what onnx_export/fp16_weights.py appends to a weight that is stored as float16


def note_architecture(model: ModelProto, architecture: Architecture) -> None:
    """Keep the architecture, without the auxiliary head, in the model's metadata."""
    entry = model.metadata_props.add()
    entry.key, entry.value = ARCHITECTURE, json.dumps(asdict(replace(architecture, aux_head=False)))


def read(path: Path) -> tuple[str, dict[str, Tensor]]:
    """(architecture as JSON, every initialiser by its module's key, float32).

    The initialisers hold the constants of the graph as well. Raises ValueError when the file is no ONNX or says no
    architecture.
    """
    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise ValueError(f"{path} is not an ONNX file: {error}") from None
    noted = [entry.value for entry in model.metadata_props if entry.key == ARCHITECTURE]
    if not noted:
        raise ValueError(f"{path} has no {ARCHITECTURE} in its metadata; expected an export by `alignseg export`")
    arrays = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    floats = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
    return noted[0], {name.removesuffix(_HALF): torch.tensor(array).float() for name, array in floats.items()}
