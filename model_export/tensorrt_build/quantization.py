"""8-bit convolutions for TensorRT, int8 or fp8, by Q/DQ nodes with scales measured on images.

Symmetric, as TensorRT requires: one scale a tensor for activations, one an output channel for weights. The convolutions
that read the image or output offsets or logits stay in float: their errors would be positions and classes.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from model_export.onnx_export import calibration
from service.types import PICTURES, UInt8Array

Array = npt.NDArray[np.float32]
EightBit = Literal["int8", "fp8"]
# Of the fp8 types the one with more digits, E4M3FN: activations and weights need digits more than range.
_TYPES: Final[dict[EightBit, np.dtype[Any]]] = {"int8": np.dtype(np.int8), "fp8": np.dtype(ml_dtypes.float8_e4m3fn)}
_LARGEST: Final[dict[EightBit, float]] = {"int8": 127.0, "fp8": 448.0}
_FEWEST_CHANNELS: Final[dict[EightBit, int]] = {"int8": 1, "fp8": 16}  # fp8 convolutions need at least 16
_TENSORS_A_RUN: Final = 32  # output by one run, so that their values fit into memory


def convolutions(model: ModelProto, kind: EightBit) -> list[NodeProto]:
    """The convolutions to quantise: those of onnx_export/calibration.py, for fp8 without those of few channels."""
    return calibration.convolutions(model, _FEWEST_CHANNELS[kind])


def calibrate(model: ModelProto, images: Sequence[UInt8Array], kind: EightBit) -> dict[str, float]:
    """The largest absolute value of each convolution's input on the images, by the input's name.

    No outliers are cut off, since they decide classes: alignseg-lite in int8 on CamVid agrees with float32 on 98.6 % of
    the pixels, on 95.5 % when 0.01 % of the values are cut off, and in fp8 on 99.6 %.
    model: float32, with function bodies, so that ONNX Runtime runs it. images: (H, W, 3) uint8 RGB, of any sizes.
    """
    names = list(dict.fromkeys(node.input[0] for node in convolutions(model, kind)))
    largest = dict.fromkeys(names, 0.0)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    )  # many graphs, each run a few times
    options.log_severity_level = 3  # errors only: it warns of initializers that the reduced graph does not use
    for first in range(0, len(names), _TENSORS_A_RUN):
        batch = names[first : first + _TENSORS_A_RUN]
        session = onnxruntime.InferenceSession(_with_outputs(model, batch), options, providers=["CPUExecutionProvider"])
        for image in images:
            for name, values in zip(batch, session.run(batch, {PICTURES: image[None]}), strict=True):
                largest[name] = max(largest[name], float(np.abs(values).max()))
    return largest


def quantise(model: ModelProto, largest: dict[str, float], kind: EightBit) -> int:
    """Insert Q/DQ before the convolutions and store their weights in 8 bits, in place. Returns how many there are.

    largest: as returned by `calibrate`.
    """
    weights = {weight.name: weight for weight in model.graph.initializer}
    quantised: set[str] = set()  # inputs
    chosen = convolutions(model, kind)
    for node in chosen:
        source, kernel = node.input[0], node.input[1]
        added = (
            [] if source in quantised else _activation(model, source, max(largest[source], 1e-6) / _LARGEST[kind], kind)
        )
        added.append(_kernel(model, numpy_helper.to_array(weights[kernel]), kernel, kind))
        quantised.add(source)
        node.input[0], node.input[1] = f"{source}.dq", f"{kernel}.dq"
        index = list(model.graph.node).index(node)
        for offset, new in enumerate(added):
            model.graph.node.insert(index + offset, new)
    for entry in model.opset_import:
        if entry.domain == "":
            # The first with fp8 and with scales of half types; 20 renames GridSample's mode (see custom_ops.OPSET).
            entry.version = max(entry.version, 19)
    return len(chosen)


def _activation(model: ModelProto, source: str, scale: float, kind: EightBit) -> list[NodeProto]:
    constants = [f"{source}.scale", f"{source}.zero"]
    model.graph.initializer.append(numpy_helper.from_array(np.array(scale, dtype=np.float32), constants[0]))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((), dtype=_TYPES[kind]), constants[1]))
    return [
        helper.make_node("QuantizeLinear", [source, *constants], [f"{source}.q"], name=f"{source}/Quantize"),
        helper.make_node(
            "DequantizeLinear", [f"{source}.q", *constants], [f"{source}.dq"], name=f"{source}/Dequantize"
        ),
    ]


def _kernel(model: ModelProto, values: Array, name: str, kind: EightBit) -> NodeProto:
    """Store the weights in 8 bits with one scale an output channel. Returns the node that dequantises them."""
    # At least float16's smallest number: the scale of a channel without weights would be 0, which TensorRT rejects.
    scale = np.maximum(np.abs(values).max(axis=(1, 2, 3)) / _LARGEST[kind], np.float32(2.0**-24))
    scaled = values / scale[:, None, None, None]
    stored = (np.rint(scaled) if kind == "int8" else scaled).astype(_TYPES[kind])
    constants = {
        f"{name}.q": stored,
        f"{name}.scale": scale.astype(np.float32),
        f"{name}.zero": np.zeros(len(scale), _TYPES[kind]),
    }
    model.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in constants.items())
    return helper.make_node("DequantizeLinear", list(constants), [f"{name}.dq"], name=f"{name}/Dequantize", axis=0)


def _with_outputs(model: ModelProto, names: Sequence[str]) -> bytes:
    """The model with these values as its outputs."""
    copy = ModelProto.FromString(model.SerializeToString())
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return bytes(copy.SerializeToString())
