"""The exported ONNX in plain operators, for tools that read no local functions or no float16 weights.

Among them are OpenVINO without our extension, OpenCV, onnx.version_converter and ONNX Runtime's quantize_dynamic.
"""

import copy

from onnx import ModelProto, inliner

from model_export.onnx_export import custom_ops
from model_export.onnx_export.fp16_weights import restore_float32


def inline(model: ModelProto) -> ModelProto:
    """A copy of `model` with the same numbers: function bodies in place of their nodes, all weights in float32."""
    plain = copy.deepcopy(model)
    restore_float32(plain)
    plain = inliner.inline_local_functions(plain)
    kept = [entry for entry in plain.opset_import if entry.domain != custom_ops.DOMAIN]
    del plain.opset_import[:]
    plain.opset_import.extend(kept)
    return plain
