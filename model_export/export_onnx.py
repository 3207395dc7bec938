"""AlignSeg -> one portable ONNX, compared numerically with PyTorch before it is written."""

import copy
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir
import torch
from onnx import ModelProto
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants_ir

from model_export import functions, parity
from model_export.alignseg import AlignSeg
from model_export.atomic import replacing
from model_export.checkpoints import onnx_weights
from model_export.graph_names import name_after_modules
from model_export.half_weights import store_exact_halves
from model_export.lowering.merged_generators import merge_generators
from model_export.onnx_export import same_padding
from model_export.serving_module import ServingModule
from service.contracts import UInt8Array

INPUT, CLASS_MAP, LOGITS = "pictures", "class_map", "logits"


def export(network: AlignSeg, path: Path, frames: Sequence[UInt8Array]) -> list[parity.Row]:
    """Write `path`, if ONNX Runtime agrees with PyTorch on it; `path` is either whole or untouched.

    frames: pictures, (H, W, 3) uint8 RGB, that parity is measured on at several sizes, odd ones and batches included.
    Returns the comparison's rows. Raises parity.ParityError, with the figures, on a breach.
    """
    model = to_onnx(network)
    rows = parity.compare(ServingModule(network), parity.onnx_runtime(model), frames)
    parity.require(rows)
    with replacing(path) as temporary:
        onnx.save(model, temporary)
    return rows


def to_onnx(network: AlignSeg) -> ModelProto:
    """Export without checking.

    Input "pictures", (N, H, W, 3) uint8 RGB; outputs "class_map", (N, H, W) uint8, and the "logits" it comes from,
    (N, num_classes, ~H/4, ~W/4) float32, which cost nothing and tell the confidence; N, H and W dynamic.
    """
    network = copy.deepcopy(network).eval()
    merge_generators(network)
    functions.put_nodes_in_place(network)
    same_padding.put_nodes_in_place(network)
    dynamic = torch.export.Dim.AUTO
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, whose operators are not used
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own deprecations, which a user can do nothing about
        program = torch.onnx.export(
            ServingModule(network),
            (torch.zeros(2, 97, 131, 3, dtype=torch.uint8),),  # any odd size: the result depends on none of it
            dynamo=True,
            opset_version=functions.OPSET,
            input_names=[INPUT],
            output_names=[CLASS_MAP, LOGITS],
            dynamic_shapes=({0: dynamic, 1: dynamic, 2: dynamic},),
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("PyTorch's exporter returned no program")
    _tidy(program.model)
    model = program.model_proto
    name_after_modules(model, {INPUT: ("N", "H", "W")})
    functions.attach_bodies(model, network.architecture.sampling)
    store_exact_halves(model)
    onnx_weights.note_architecture(model, network.architecture)
    onnx.checker.check_model(model)
    return model


def _tidy(model: onnx_ir.Model) -> None:
    """Fold the exporter's shape arithmetic, and no more.

    Norms stay apart from convolutions: runtimes fold them by themselves, the graph shows the network as it is, and
    its weights stay the checkpoint's own numbers.
    """
    fold_constants_ir(model)
    passes = onnx_ir.passes.Sequential(
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
    )
    passes(model)
