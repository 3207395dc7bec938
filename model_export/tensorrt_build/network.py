"""ONNX -> TensorRT network, and a check that TensorRT parsed it as meant: all warps present, sampling linear."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto

from model_export.onnx_export import custom_ops
from model_export.tensorrt_build.graph import Warp
from model_export.tensorrt_build.library import Library

_SAMPLES = {custom_ops.AGGREGATE: 2, custom_ops.CONTEXT: 1}  # grid samples in the body of each


class WrongNetworkError(Exception):
    """TensorRT parsed the ONNX file into a different network."""


@dataclass(frozen=True, slots=True)
class NetworkReport:
    """Numbers of layers: in all, of each type, and those that sample (GridSample or plugin)."""

    layers: int
    by_type: dict[str, int]
    warps: int


def parse(library: Library, builder: Any, model: ModelProto) -> Any:
    """A strongly typed network, whose types are those in the ONNX file.

    Raises RuntimeError with the parser's messages.
    """
    flags = library.trt.NetworkDefinitionCreationFlag
    strongly_typed = 1 << int(flags.STRONGLY_TYPED)  # the only kind from TensorRT 11 on
    network = library.require(builder.create_network(strongly_typed), "create a network")
    parser = library.trt.OnnxParser(network, library.logger)
    if not parser.parse(model.SerializeToString()):
        reasons = "\n".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise RuntimeError(f"{library.runtime} {library.version} can't import the ONNX file:\n{reasons}")
    return network


def check(library: Library, network: Any, model: ModelProto, warp: Warp) -> NetworkReport:
    """Check that the network has as many warps as the model, and that each samples linearly with zeros outside.

    TensorRT's parser, up to 11.1 at least, reads GridSample's opset-20 mode `linear` as nearest, without a warning.
    Raises WrongNetworkError.
    """
    trt = library.trt
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    nodes = [node for node in model.graph.node if node.domain == custom_ops.DOMAIN]
    if warp == "gridsample":
        warps = [layer for layer in layers if layer.type == trt.LayerType.GRID_SAMPLE]
        expected = sum(_SAMPLES[node.op_type] for node in nodes)
        for layer in warps:
            _require_linear(trt, layer)
    else:
        warps = [layer for layer in layers if layer.type == trt.LayerType.PLUGIN_V3]
        expected = len(nodes)
    if len(warps) != expected:
        raise WrongNetworkError(
            f"TensorRT's network has {len(warps)} {warp} layers, expected {expected} as in the model"
        )
    by_type = Counter(layer.type.name.lower() for layer in layers)
    return NetworkReport(len(layers), dict(by_type.most_common()), expected)


def _require_linear(trt: Any, layer: Any) -> None:
    layer.__class__ = trt.IGridSampleLayer  # TensorRT's API returns layers as their base class
    linear = layer.interpolation_mode == trt.InterpolationMode.LINEAR
    zeros = layer.sample_mode == trt.SampleMode.FILL
    floats = {layer.get_input(index).dtype for index in range(2)} == {trt.DataType.FLOAT}
    if not (linear and zeros and floats):
        raise WrongNetworkError(
            f"{layer.name} samples {layer.interpolation_mode}, {layer.sample_mode}, in "
            f"{layer.get_input(1).dtype}; expected LINEAR, FILL, FLOAT"
        )
