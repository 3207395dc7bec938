"""8-bit convolutions, int8 or fp8, by Q/DQ: ranges measured on pictures, scales written into TensorRT's graph.

Symmetric, as TensorRT wants it: one scale a tensor for activations, one an output channel for weights. What reads the
picture, makes offsets or makes logits stays in the precision around it: their errors are positions and classes.
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
# Of fp8 the kind with more digits, E4M3FN: activations and weights need them more than range.
_TYPES: Final[dict[EightBit, np.dtype[Any]]] = {"int8": np.dtype(np.int8), "fp8": np.dtype(ml_dtypes.float8_e4m3fn)}
_LARGEST: Final[dict[EightBit, float]] = {"int8": 127.0, "fp8": 448.0}
_FEWEST_CHANNELS: Final[dict[EightBit, int]] = {"int8": 1, "fp8": 16}  # fp8 convolutions need at least 16
_BATCH: Final = 32  # tensors observed in one run, so that their values fit in memory


def convolutions(model: ModelProto, kind: EightBit) -> list[NodeProto]:
    """Return the convolutions that become 8-bit: those of int8_ranges.py, for fp8 without those of few channels."""
    return calibration.convolutions(model, _FEWEST_CHANNELS[kind])


def calibrate(model: ModelProto, pictures: Sequence[UInt8Array], kind: EightBit) -> dict[str, float]:
    """How far from zero the inputs of these convolutions reach, by name: all the way, for outliers carry classes.

    (alignseg-lite on CamVid: with int8 98.6 % of pixels agree with float32, 95.5 % when 0.01 % of the values are cut
    off; with fp8 99.6 %.)
    model: float32, with function bodies, so that ONNX Runtime runs it. pictures: (H, W, 3) uint8 RGB, of any sizes.
    """
    names = list(dict.fromkeys(node.input[0] for node in convolutions(model, kind)))
    reach = dict.fromkeys(names, 0.0)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # few runs, many graphs
    options.log_severity_level = 3  # what a cut graph leaves unused is no news
    for first in range(0, len(names), _BATCH):
        some = names[first : first + _BATCH]
        session = onnxruntime.InferenceSession(_tapped(model, some), options, providers=["CPUExecutionProvider"])
        for picture in pictures:
            for name, values in zip(some, session.run(some, {PICTURES: picture[None]}), strict=True):
                reach[name] = max(reach[name], float(np.abs(values).max()))
    return reach


def quantise(model: ModelProto, reach: dict[str, float], kind: EightBit) -> int:
    """Put Q/DQ before these convolutions, and their weights in 8 bits, in place. Returns how many convolutions."""
    weights = {weight.name: weight for weight in model.graph.initializer}
    made: set[str] = set()
    chosen = convolutions(model, kind)
    for node in chosen:
        source, kernel = node.input[0], node.input[1]
        added = [] if source in made else _activation(model, source, max(reach[source], 1e-6) / _LARGEST[kind], kind)
        added.append(_kernel(model, numpy_helper.to_array(weights[kernel]), kernel, kind))
        made.add(source)
        node.input[0], node.input[1] = f"{source}.dq", f"{kernel}.dq"
        index = list(model.graph.node).index(node)
        for offset, new in enumerate(added):
            model.graph.node.insert(index + offset, new)
    for entry in model.opset_import:
        if entry.domain == "":
            entry.version = max(
                entry.version, 19
            )  # the first with fp8 and with scales of half types; the last before 20
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
    """Weights in 8 bits, a scale an output channel."""
    scale = np.maximum(np.abs(values).max(axis=(1, 2, 3)), 1e-12) / _LARGEST[kind]
    scaled = values / scale[:, None, None, None]
    stored = (np.rint(scaled) if kind == "int8" else scaled).astype(_TYPES[kind])
    constants = {
        f"{name}.q": stored,
        f"{name}.scale": scale.astype(np.float32),
        f"{name}.zero": np.zeros(len(scale), _TYPES[kind]),
    }
    model.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in constants.items())
    return helper.make_node("DequantizeLinear", list(constants), [f"{name}.dq"], name=f"{name}/Dequantize", axis=0)


def _tapped(model: ModelProto, names: Sequence[str]) -> bytes:
    """The model with these values as its outputs."""
    tapped = ModelProto.FromString(model.SerializeToString())
    del tapped.graph.output[:]
    tapped.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return bytes(tapped.SerializeToString())
