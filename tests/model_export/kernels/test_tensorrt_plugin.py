"""The registration, called by NVIDIA's own tensorrt.plugin as in a build, on fakes of TensorRT's libraries."""

from collections.abc import Iterator
from typing import Any

import pytest

from model_export.kernels.ptx import Compiled, Spec
from model_export.kernels.tactics import TACTICS, numbered
from model_export.onnx_export import custom_ops
from tests.model_export.kernels import fake_tensorrt
from tests.model_export.kernels.fake_tensorrt import (
    DataType,
    DynamicPluginTensorDesc,
    ExprBuilder,
    Recorder,
    TensorFormat,
)

C, H, W = 64, 90, 120
SHAPES = {
    "AlignedAggregate": ((2, C, H, W), (2, C, 45, 60), (2, 4, H, W), (2, C, H, W)),
    "AlignedContext": ((2, C, H, W), (2, C, 3, 3), (2, 2, H, W), (2, C, H, W)),
}


@pytest.fixture(scope="module")
def trt() -> Iterator[Any]:
    with fake_tensorrt.installed() as module:
        if module is None:
            pytest.skip("NVIDIA's tensorrt.plugin is not installed: pip install --no-deps tensorrt-cu13-bindings")
        yield module


@pytest.fixture
def compiled(trt: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Spec, int]]:
    """The PTX that was requested; test_ptx.py compiles it."""
    from model_export.kernels import tensorrt_plugin

    requested: list[tuple[Spec, int]] = []

    def compile_ptx(spec: Spec, architecture: int) -> Compiled:
        requested.append((spec, architecture))
        return Compiled(spec.kernel, "the PTX", spec.tactic.warps * 32, 1024)

    monkeypatch.setattr(tensorrt_plugin, "compile_ptx", compile_ptx)
    monkeypatch.setattr(tensorrt_plugin, "architecture", 90)
    return requested


def plugin(trt: Any, name: str, dtypes: list[DataType], sampling: str = "standard") -> Any:
    """As the ONNX parser creates it from a node with aot=1."""
    import numpy as np

    creator = trt.get_plugin_registry().get_creator(name, "1", custom_ops.DOMAIN)
    field = fake_tensorrt.PluginField("sampling", np.frombuffer(sampling.encode(), dtype=np.int8))
    instance = creator.create_plugin(
        name, custom_ops.DOMAIN, [field], trt.TensorRTPhase.BUILD, trt.QuickPluginCreationRequest.STRICT_AOT
    )
    assert instance.get_output_data_types(dtypes[:3], [4, 4, 4]) == [dtypes[3]]
    return instance


def offered(
    instance: Any, name: str, dtypes: list[DataType]
) -> list[tuple[tuple[Any, ...], tuple[Any, ...], list[int]]]:
    """(types, formats, tactics) that TensorRT may time."""
    descs = [DynamicPluginTensorDesc(s, d, TensorFormat.LINEAR) for s, d in zip(SHAPES[name], dtypes, strict=True)]
    inputs = [[fake_tensorrt.Expr(n) for n in shape] for shape in SHAPES[name][:3]]
    (shape,) = instance.get_output_shapes(inputs, [], ExprBuilder())
    assert [expr.value for expr in shape] == list(SHAPES[name][3])
    instance.get_supported_format_combinations(descs, 3)
    return [(tuple(c.types), tuple(c.layouts), sorted(t)) for c, t in instance.supported_combs.items()]


@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("half", [DataType.HALF, DataType.BF16])
def test_half_types_offer_linear_and_hwc8(trt: Any, compiled: object, name: str, half: DataType) -> None:
    instance = plugin(trt, name, [half] * 4)
    linear, hwc8 = TensorFormat.LINEAR, TensorFormat.HWC8
    combinations = offered(instance, name, [half] * 4)
    assert {types for types, _, _ in combinations} == {(half,) * 4}
    assert [formats for _, formats, _ in combinations] == [
        (linear,) * 4, (hwc8, hwc8, linear, hwc8), (hwc8, hwc8, hwc8, hwc8),
    ]  # fmt: skip
    assert all(tactics and min(tactics) > 0 for _, _, tactics in combinations)


def test_float32_offers_linear_and_hwc(trt: Any, compiled: object) -> None:
    instance = plugin(trt, "AlignedAggregate", [DataType.FLOAT] * 4)
    formats = {f for _, f, _ in offered(instance, "AlignedAggregate", [DataType.FLOAT] * 4)}
    assert (TensorFormat.HWC, TensorFormat.HWC, TensorFormat.LINEAR, TensorFormat.HWC) in formats
    assert all(TensorFormat.HWC8 not in f for f in formats)


@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("sampling", ["standard", "published"])
def test_launch_parameters_and_scalars(trt: Any, compiled: list[tuple[Spec, int]], name: str, sampling: str) -> None:
    dtypes = [DataType.HALF, DataType.HALF, DataType.FLOAT, DataType.HALF]
    instance = plugin(trt, name, dtypes, sampling)
    for types, formats, tactics in offered(instance, name, dtypes):
        layout = "planar" if formats[0] == TensorFormat.LINEAR else "channels_last"
        for number in tactics:
            instance.set_tactic(number)
            launch, scalars = Recorder(), Recorder()
            descs = [DynamicPluginTensorDesc(s, d, f) for s, d, f in zip(SHAPES[name], types, formats, strict=True)]
            instance.get_launch_params(None, descs, 3, launch, scalars, ExprBuilder())
            spec, architecture = compiled[-1]
            tactic = TACTICS[layout][number - 1]
            assert (spec.tactic, architecture, spec.channels) == (tactic, 90, C)
            assert (spec.storage, spec.offsets, spec.standard) == ("fp16", "fp32", sampling == "standard")
            assert spec.pixel == (0 if layout == "planar" else C)
            offset_channels = SHAPES[name][2][1]
            assert spec.offsets_pixel == {TensorFormat.LINEAR: 0, TensorFormat.HWC: offset_channels}[formats[2]]
            grid = tuple(launch.values[f"grid_{axis}"] for axis in "xyz")
            assert grid == tactic.grid(H, W, C, 2)
            assert [launch.values[f"block_{axis}"] for axis in "xyz"] == [tactic.warps * 32, 1, 1]
            assert launch.values["shared_mem"] == 1024
            # Between the inputs and the output: the raster's size, then the other map's.
            assert [scalars.values[i] for i in range(4)] == [H, W, *SHAPES[name][1][2:]]
            assert instance.get_kernel([d.desc for d in descs[:3]], [descs[3].desc]) == (spec.kernel, b"the PTX")


def test_an_unknown_convention_is_an_error_and_a_final_zero_is_ignored(
    trt: Any, compiled: list[tuple[Spec, int]]
) -> None:
    def convention(sampling: str) -> bool:
        instance = plugin(trt, "AlignedAggregate", [DataType.HALF] * 4, sampling)
        offered(instance, "AlignedAggregate", [DataType.HALF] * 4)
        instance.set_tactic(1)
        descs = [DynamicPluginTensorDesc(s, DataType.HALF, TensorFormat.LINEAR) for s in SHAPES["AlignedAggregate"]]
        instance.get_launch_params(None, descs, 3, Recorder(), Recorder(), ExprBuilder())
        return compiled[-1][0].standard

    assert convention("standard\0")
    assert not convention("published\0")
    with pytest.raises(ValueError, match="expected 'standard' or 'published'"):
        convention("Standard")


def test_offsets_in_hwc8_are_padded(trt: Any, compiled: list[tuple[Spec, int]]) -> None:
    instance = plugin(trt, "AlignedAggregate", [DataType.HALF] * 4)
    offered(instance, "AlignedAggregate", [DataType.HALF] * 4)
    instance.set_tactic(next(iter(numbered("channels_last", C))))
    descs = [DynamicPluginTensorDesc(s, DataType.HALF, TensorFormat.HWC8) for s in SHAPES["AlignedAggregate"]]
    instance.get_launch_params(None, descs, 3, Recorder(), Recorder(), ExprBuilder())
    assert compiled[-1][0].offsets_pixel == 8


def test_channels_that_hwc8_would_pad_are_planar_only(trt: Any, compiled: object) -> None:
    from model_export.kernels import tensorrt_plugin

    instance = plugin(trt, "AlignedAggregate", [DataType.HALF] * 4)
    offered(instance, "AlignedAggregate", [DataType.HALF] * 4)
    low, offsets = instance.input_descs[0], instance.input_descs[2]
    low._immutable = False
    low.shape = tensorrt_plugin.trtp.Shape((1, 12, H, W))
    (only,) = tensorrt_plugin.tune_aggregate(low, low, offsets, (low,))
    assert only.layouts == ["LINEAR"] * 4
