"""Readable names in the graph: each node and value is named after the PyTorch module that it belongs to."""

import ast
from collections import Counter

from onnx import ModelProto, NodeProto

_SCOPES = "pkg.torch.onnx.name_scopes"


def name_after_modules(model: ModelProto, dimensions: dict[str, tuple[str, ...]]) -> None:
    """Rename nodes and values in place, e.g. to `backbone.stages.0.1.body.0/Conv`. Inputs and outputs keep their names.

    dimensions: names of the dynamic dimensions of each graph input, by input name. The exporter's metadata is removed.
    """
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    uses: Counter[str] = Counter()
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        node.name = _unique(f"{_module(node)}/{node.op_type}", uses)
        for index, output in enumerate(node.output):
            if output not in kept:
                renamed[output] = node.name + (f":{index}" if index else "")
    for weight in model.graph.initializer:
        renamed[weight.name] = weight.name.removeprefix("network.").replace("val_", "constant_")
    _apply(model, renamed)
    _name_dimensions(model, dimensions)


def _module(node: NodeProto) -> str:
    for entry in node.metadata_props:
        if entry.key == _SCOPES and "_empty_nn_module" not in entry.value:
            scopes: list[str] = ast.literal_eval(entry.value)
            module = scopes[-2] if len(scopes) > 1 else ""
            return module.removeprefix("network").removeprefix(".") or "serving"
    return "shape"  # arithmetic on dynamic sizes belongs to no module


def _unique(name: str, uses: Counter[str]) -> str:
    uses[name] += 1
    return name if uses[name] == 1 else f"{name}_{uses[name]}"


def _apply(model: ModelProto, renamed: dict[str, str]) -> None:
    graph = model.graph
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        del node.metadata_props[:]
    for named in (*graph.initializer, *graph.value_info):
        named.name = renamed.get(named.name, named.name)
        del named.metadata_props[:]
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
    del graph.metadata_props[:]


def _name_dimensions(model: ModelProto, dimensions: dict[str, tuple[str, ...]]) -> None:
    symbols = {
        dim.dim_param: name
        for value in model.graph.input
        for dim, name in zip(value.type.tensor_type.shape.dim, dimensions[value.name], strict=False)
    }
    del model.graph.value_info[:]  # their shapes use the old names; runtimes infer them again
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_param = symbols[dim.dim_param]
    for value in model.graph.input:
        for dim, name in zip(value.type.tensor_type.shape.dim, dimensions[value.name], strict=False):
            dim.dim_param = name
