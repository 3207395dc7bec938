"""Names that a reader of the graph understands: each node and value is called after the module it belongs to."""

import ast
from collections import Counter

from onnx import ModelProto, NodeProto

_SCOPES = "pkg.torch.onnx.name_scopes"


def name_after_modules(model: ModelProto, dimensions: dict[str, tuple[str, ...]]) -> None:
    """Rename in place, e.g. `backbone.stages.0.1.body.0/Conv`; inputs, outputs and weights keep their names.

    dimensions: the symbolic dimensions of each graph input, by input name. The exporter's own notes are removed.
    """
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    seen: Counter[str] = Counter()
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        node.name = _unique(f"{_module(node)}/{node.op_type}", seen)
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


def _unique(name: str, seen: Counter[str]) -> str:
    seen[name] += 1
    return name if seen[name] == 1 else f"{name}_{seen[name]}"


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
    del model.graph.value_info[:]  # their sizes are formulas over the old symbols; runtimes infer them anew
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_param = symbols[dim.dim_param]
    for value in model.graph.input:
        for dim, name in zip(value.type.tensor_type.shape.dim, dimensions[value.name], strict=False):
            dim.dim_param = name
