"""ONNX -> TensorRT network, and whether it is the network that was meant: the warps all there, sampling mode linear."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto

from model_export.onnx_export import custom_ops
from model_export.tensorrt_build.graph import Warp
from model_export.tensorrt_build.library import Library

_SAMPLES = {custom_ops.AGGREGATE: 2, custom_ops.CONTEXT: 1}  # grid samples in the body of each


class WrongNetworkError(Exception):
    """TensorRT parsed the ONNX into something else than it says."""


@dataclass(frozen=True, slots=True)
class Report:
    """layers: how many. kinds: how many of each type. warps: grid samples, or plugins, as counted and as expected."""

    layers: int
    kinds: dict[str, int]
    warps: int


def parse(library: Library, builder: Any, model: ModelProto) -> Any:
    """A strongly typed network: its types are the ONNX's.

    Raises RuntimeError with the parser's errors.
    """
    flags = library.trt.NetworkDefinitionCreationFlag
    strongly_typed = 1 << int(flags.STRONGLY_TYPED)  # the only kind from TensorRT 11 on
    network = library.require(builder.create_network(strongly_typed), "create a network")
    parser = library.trt.OnnxParser(network, library.logger)
    if not parser.parse(model.SerializeToString()):
        told = "\n".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise RuntimeError(f"{library.runtime} {library.version} can't import the ONNX:\n{told}")
    return network


def check(library: Library, network: Any, model: ModelProto, warp: Warp) -> Report:
    """Assert that the network holds as many warps as the model, and that each samples linearly with zeros outside.

    TensorRT's parser, to 11.1 at least, takes GridSample's opset-20 mode `linear` for nearest, in silence.
    Raises WrongNetworkError.
    """
    trt = library.trt
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    nodes = [node for node in model.graph.node if node.domain == custom_ops.DOMAIN]
    if warp == "gridsample":
        found = [layer for layer in layers if layer.type == trt.LayerType.GRID_SAMPLE]
        expected = sum(_SAMPLES[node.op_type] for node in nodes)
        for layer in found:
            _require_linear(trt, layer)
    else:
        found = [layer for layer in layers if layer.type == trt.LayerType.PLUGIN_V3]
        expected = len(nodes)
    if len(found) != expected:
        raise WrongNetworkError(f"the network has {len(found)} {warp} layers, the model needs {expected}")
    kinds = Counter(layer.type.name.lower() for layer in layers)
    return Report(len(layers), dict(kinds.most_common()), expected)


def _require_linear(trt: Any, layer: Any) -> None:
    layer.__class__ = trt.IGridSampleLayer  # the API gives layers as their base class
    linear = layer.interpolation_mode == trt.InterpolationMode.LINEAR
    zeros = layer.sample_mode == trt.SampleMode.FILL
    floats = {layer.get_input(index).dtype for index in range(2)} == {trt.DataType.FLOAT}
    if not (linear and zeros and floats):
        raise WrongNetworkError(
            f"{layer.name} samples {layer.interpolation_mode}, {layer.sample_mode}, in "
            f"{layer.get_input(1).dtype}; expected LINEAR, FILL, FLOAT"
        )
