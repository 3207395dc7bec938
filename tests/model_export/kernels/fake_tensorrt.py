"""Fakes of the C++ bindings that TensorRT's Python package tensorrt.plugin uses, so that the package itself runs.

The package is NVIDIA's own, from the wheel tensorrt-cu13-bindings; its libraries need not be installed. @register,
@autotune and @aot_impl are checked and called as a build would call them. Symbolic sizes are plain integers.
"""

import enum
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64 = range(9)


class TensorFormat(enum.Enum):
    LINEAR, HWC8, HWC = range(3)


class DimensionOperation(enum.Enum):
    SUM, PROD, MAX, MIN, SUB, EQUAL, LESS, FLOOR_DIV, CEIL_DIV = range(9)


class Expr:
    """IDimensionExpr."""

    def __init__(self, value: int) -> None:
        self.value = value

    def is_constant(self) -> bool:
        return True

    def get_constant_value(self) -> int:
        return self.value


class ExprBuilder:
    def constant(self, value: int) -> Expr:
        return Expr(value)

    def operation(self, op: DimensionOperation, a: Expr, b: Expr) -> Expr:
        compute = {
            DimensionOperation.PROD: lambda x, y: x * y,
            DimensionOperation.SUM: lambda x, y: x + y,
            DimensionOperation.CEIL_DIV: lambda x, y: -(-x // y),
        }
        return Expr(compute[op](a.value, b.value))


class Dims(list):  # type: ignore[type-arg]
    MAX_DIMS = 8


class PluginTensorDesc:
    dims: Any = None
    type: Any = None
    format: Any = None
    scale = 1.0


class DynamicPluginTensorDesc:
    def __init__(self, dims: tuple[int, ...], dtype: DataType, layout: TensorFormat) -> None:
        self.desc = PluginTensorDesc()
        self.desc.dims, self.desc.type, self.desc.format = Dims(dims), dtype, layout
        self.min = self.max = self.opt = self.desc.dims


class Registry:
    def __init__(self) -> None:
        self.creators: dict[tuple[str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> None:
        self.creators[creator.name, namespace] = creator

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        return self.creators[name, namespace]


class PluginField:
    def __init__(self, name: str, data: Any = None, kind: Any = None) -> None:
        self.name, self.data, self.kind = name, data, kind


class Recorder:
    """Launch parameters and scalars, as TensorRT receives them."""

    def __init__(self) -> None:
        self.__dict__["values"] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        self.values[name] = value.expr.value if hasattr(value, "expr") else value

    def __setitem__(self, index: int, value: Any) -> None:
        self.values[index] = value.expr.value


class _Logger:
    WARNING = 0

    def log(self, *_: Any) -> None:
        pass


def _module(path: list[str]) -> Any:
    module: Any = types.ModuleType("tensorrt")
    module.__path__ = path
    registry = Registry()
    empty = (
        "IPluginV3 IPluginV3QuickCore IPluginV3QuickBuild IPluginV3QuickRuntime IPluginV3QuickAOTBuild "
        "IPluginCreatorV3Quick ISymExpr ITensor"
    )
    for name in empty.split():
        setattr(module, name, type(name, (), {}))
    module.DataType, module.TensorFormat, module.DimensionOperation = DataType, TensorFormat, DimensionOperation
    module.IDimensionExpr, module.Dims, module.PluginTensorDesc = Expr, Dims, PluginTensorDesc
    module.DynamicPluginTensorDesc, module.PluginField = DynamicPluginTensorDesc, PluginField
    module.PluginFieldCollection, module.DimsExprs = list, lambda length: [None] * length
    module.PluginFieldType = enum.Enum("PluginFieldType", "INT8 INT16 INT32 INT64 FLOAT16 FLOAT32 FLOAT64 CHAR UNKNOWN")
    module.QuickPluginCreationRequest = enum.Enum(
        "QuickPluginCreationRequest", "UNKNOWN PREFER_JIT PREFER_AOT STRICT_JIT STRICT_AOT"
    )
    module.PluginArgType = enum.Enum("PluginArgType", "INT")
    module.PluginArgDataType = enum.Enum("PluginArgDataType", "INT8 INT16 INT32")
    module.TensorRTPhase = enum.Enum("TensorRTPhase", "BUILD RUNTIME")
    module.Logger, module.float32 = _Logger, DataType.FLOAT
    module.get_plugin_registry = lambda: registry
    module.registry = registry
    return module


@contextmanager
def installed() -> Iterator[Any]:
    """`import tensorrt` imports the fake, `import tensorrt.plugin` NVIDIA's package. Yields None without its wheel."""
    spec = importlib.util.find_spec("tensorrt_bindings")
    if spec is None or not spec.submodule_search_locations:
        yield None
        return
    replaced = ("tensorrt", "model_export.kernels.tensorrt_plugin")
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(replaced)}
    sys.modules["tensorrt"] = module = _module(list(spec.submodule_search_locations))
    try:
        yield module
    finally:
        for name in [name for name in sys.modules if name.startswith(replaced)]:
            del sys.modules[name]
        sys.modules.update(kept)
