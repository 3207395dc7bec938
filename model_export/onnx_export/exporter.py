"""AlignSeg -> one portable ONNX file, compared numerically with PyTorch before it is written."""

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

from model_export.alignseg import AlignSeg
from model_export.checkpoints import onnx_weights
from model_export.onnx_export import custom_ops, parity, same_padding
from model_export.onnx_export.fp16_weights import store_exact_halves
from model_export.onnx_export.inline import inline
from model_export.onnx_export.merge_offset_generators import merge_generators
from model_export.onnx_export.node_names import name_after_modules
from model_export.onnx_export.serving_module import ServingModule
from service.files import atomic_replace
from service.types import CLASS_MAP, LOGITS, PICTURES, UInt8Array


def export(network: AlignSeg, path: Path, frames: Sequence[UInt8Array]) -> list[parity.Row]:
    """Export `network`, compare ONNX Runtime with PyTorch, and write `path` if they agree.

    frames: images, (H, W, 3) uint8 RGB, to compare on at several sizes, odd ones and batches included.
    Returns the comparison. Raises parity.ParityError, with the comparison, when they do not agree; `path` then stays
    as it was.
    """
    model = to_onnx(network)
    rows = parity.compare(ServingModule(network), parity.onnx_runtime(model), frames)
    parity.require(rows)
    with atomic_replace(path) as temporary:
        onnx.save(model, temporary)
    return rows


def export_inlined(network: AlignSeg, source: Path, path: Path, frames: Sequence[UInt8Array]) -> None:
    """Write `source`, an export of `network`, in plain operators to `path`. Compares and raises as `export` does."""
    model = inline(onnx.load(source))
    parity.require(parity.compare(ServingModule(network), parity.onnx_runtime(model), frames))
    with atomic_replace(path) as temporary:
        onnx.save(model, temporary)


def to_onnx(network: AlignSeg) -> ModelProto:
    """Export without the comparison.

    Input "pictures", (N, H, W, 3) uint8 RGB; outputs "class_map", (N, H, W) uint8, and "logits",
    (N, num_classes, ~H/4, ~W/4) float32, from which the service computes a confidence. N, H and W are dynamic.
    """
    network = copy.deepcopy(network).eval()
    merge_generators(network)
    custom_ops.replace_aggregations(network)
    same_padding.put_nodes_in_place(network)
    dynamic = torch.export.Dim.AUTO
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns without torchvision, which is not used
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's deprecations of its own code
        program = torch.onnx.export(
            ServingModule(network),
            (torch.zeros(2, 97, 131, 3, dtype=torch.uint8),),  # any odd size: the graph does not depend on it
            dynamo=True,
            opset_version=custom_ops.OPSET,
            input_names=[PICTURES],
            output_names=[CLASS_MAP, LOGITS],
            dynamic_shapes=({0: dynamic, 1: dynamic, 2: dynamic},),
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(
            "torch.onnx.export returned None, expected a program. Try the version of torch in pyproject.toml."
        )
    _tidy(program.model)
    model = program.model_proto
    name_after_modules(model, {PICTURES: ("N", "H", "W")})
    custom_ops.attach_bodies(model, network.architecture.sampling)
    store_exact_halves(model)
    onnx_weights.note_architecture(model, network.architecture)
    onnx.checker.check_model(model)
    return model


def _tidy(model: onnx_ir.Model) -> None:
    """Fold the exporter's shape arithmetic, and nothing else.

    Norms are not folded into convolutions: runtimes do that themselves, the graph shows the network's structure, and
    the weights are exactly the checkpoint's.
    """
    fold_constants_ir(model)
    passes = onnx_ir.passes.Sequential(
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
    )
    passes(model)
