"""The portable ONNX -> the ONNX for TensorRT: with its precision, folded norms, and plugins or function bodies."""

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, numpy_helper

from model_export.onnx_export import custom_ops
from model_export.onnx_export.fp16_weights import restore_float32
from model_export.tensorrt_build import quantization
from model_export.tensorrt_build.precision import Precision, write_precision
from model_export.tensorrt_build.quantization import EightBit
from service.types import UInt8Array

Warp = Literal["plugin", "gridsample"]


def prepare(
    model: ModelProto,
    precision: Precision | EightBit,
    warp: Warp,
    calibration: Sequence[UInt8Array] = (),
) -> ModelProto:
    """A copy of `model` for TensorRT's parser.

    precision: storage type between the normalised image and the logits, which both stay float32, as do positions and
        pooled means. "int8" and "fp8" apply to convolutions, with fp16 around them.
    warp: "plugin" drops the bodies of AlignedAggregate and AlignedContext, so that TensorRT looks for plugins of these
        names; "gridsample" keeps them.
    calibration: (H, W, 3) uint8 RGB images to measure the ranges of int8 and fp8 on.
    Raises PrecisionError when a weight does not fit the type.
    """
    prepared = copy.deepcopy(model)
    restore_float32(prepared)  # write_precision chooses the storage type of weights
    _cast_before_transpose(prepared)
    _fold_norms(prepared)
    if precision == "int8" or precision == "fp8":  # noqa: PLR1714 - mypy narrows only this form
        quantization.quantise(prepared, quantization.calibrate(prepared, calibration, precision), precision)
        precision = "fp16"
    write_precision(prepared, precision, in_half=custom_ops.NODES if warp == "plugin" else frozenset())
    if warp == "plugin":
        _call_plugins(prepared)
    _drop_unused(prepared)
    return prepared


def _call_plugins(model: ModelProto) -> None:
    """For a node without a body, TensorRT's parser calls the ahead-of-time plugin of this name and namespace."""
    del model.functions[:]
    for node in model.graph.node:
        if node.domain == custom_ops.DOMAIN:
            attributes = {"plugin_namespace": custom_ops.DOMAIN, "plugin_version": "1", "aot": 1}
            node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())


def _cast_before_transpose(model: ModelProto) -> None:
    """TensorRT supports uint8 only as an input to a cast, so the cast must precede the transposition."""
    (image,) = (value.name for value in model.graph.input)
    transpose = next((n for n in model.graph.node if image in n.input and n.op_type == "Transpose"), None)
    if transpose is None:
        return
    cast = next(n for n in model.graph.node if n.op_type == "Cast" and transpose.output[0] in n.input)
    between, result = transpose.output[0], cast.output[0]
    cast.input[:], cast.output[:] = [image], [between]
    transpose.input[:], transpose.output[:] = [between], [result]
    model.graph.node.remove(cast)
    model.graph.node.insert(list(model.graph.node).index(transpose), cast)


def _fold_norms(model: ModelProto) -> None:
    """Fold each BatchNormalization into the convolution before it, or write it as a product and a sum; in float32."""
    weights = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    uses = [name for node in model.graph.node for name in node.input] + [value.name for value in model.graph.output]
    for norm in [n for n in model.graph.node if n.op_type == "BatchNormalization"]:
        scale, shift = _scale_and_shift(norm, weights)
        before = producers.get(norm.input[0])
        index = list(model.graph.node).index(norm)
        if before is not None and before.op_type == "Conv" and uses.count(norm.input[0]) == 1:
            _fold_into(before, norm, scale, shift, weights, model)
            model.graph.node.remove(norm)
        else:
            replacement = _product_and_sum(norm, scale, shift, model)
            model.graph.node.remove(norm)
            for offset, node in enumerate(replacement):
                model.graph.node.insert(index + offset, node)


Array = npt.NDArray[np.float32]


def _scale_and_shift(norm: NodeProto, weights: dict[str, Array]) -> tuple[Array, Array]:
    """The norm as x * scale + shift; (C,) each."""
    gamma, beta, mean, variance = (weights[name].astype(np.float64) for name in norm.input[1:5])
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
    scale = gamma / np.sqrt(variance + epsilon)
    return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)


def _fold_into(
    conv: NodeProto, norm: NodeProto, scale: Array, shift: Array, weights: dict[str, Array], model: ModelProto
) -> None:
    kernel = weights[conv.input[1]]
    bias = weights[conv.input[2]] if len(conv.input) > 2 and conv.input[2] else np.zeros_like(shift)
    folded = (kernel * scale[:, None, None, None], bias * scale + shift)
    names = (f"{conv.name}.kernel", f"{conv.name}.bias")
    for name, values in zip(names, folded, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    conv.input[:] = [conv.input[0], *names]
    conv.output[0] = norm.output[0]


def _product_and_sum(norm: NodeProto, scale: Array, shift: Array, model: ModelProto) -> list[NodeProto]:
    names = (f"{norm.name}.scale", f"{norm.name}.shift")
    for name, values in zip(names, (scale, shift), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(values.reshape(1, -1, 1, 1), name))
    product = f"{norm.name}.product"
    return [
        helper.make_node("Mul", [norm.input[0], names[0]], [product], name=f"{norm.name}/Mul"),
        helper.make_node("Add", [product, names[1]], [norm.output[0]], name=f"{norm.name}/Add"),
    ]


def _drop_unused(model: ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [weight for weight in model.graph.initializer if weight.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
