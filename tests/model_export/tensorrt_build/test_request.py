"""What a build request determines: the files of an engine, and the machine that it is for."""

from dataclasses import FrozenInstanceError, replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from model_export import build_engine
from model_export.tensorrt_build import builder
from model_export.tensorrt_build.library import Library
from model_export.tensorrt_build.request import BuildRequest
from model_export.tensorrt_build.source import Source
from model_export.tensorrt_build.target import Target
from service.model_folder.engine_plan import Machine


@pytest.fixture
def request_for_h200() -> BuildRequest:
    source = Source(Path("m/model.onnx"), Path("m"), ((4, 6),))
    return BuildRequest(
        library=Library(SimpleNamespace(__version__="11.4.0"), "tensorrt", None, []),
        source=source,
        target=Target("NVIDIA H200", (90,), is_local=True),
        precision="fp16",
        warp="plugin",
        profiles=builder.profiles(source.buckets, [1, 8]),
    )


def test_files_are_named_after_gpu_runtime_version_and_precision(request_for_h200: BuildRequest) -> None:
    assert request_for_h200.plan == Path("m/engines/nvidia-h200-tensorrt-11.4.0-fp16.plan")
    compiler = f"triton-{version('triton')}"  # whose code was timed
    assert request_for_h200.timing_cache == Path(f"m/engines/nvidia-h200-tensorrt-11.4.0-{compiler}.timing")
    native = replace(request_for_h200, warp="gridsample")
    assert native.timing_cache == Path("m/engines/nvidia-h200-tensorrt-11.4.0.timing")


def test_gpus_that_triton_does_not_compile_for_sample_with_native_layers(request_for_h200: BuildRequest) -> None:
    tensorrt = request_for_h200.library
    assert build_engine._default_warp(tensorrt, request_for_h200.target) == "plugin"
    assert build_engine._default_warp(tensorrt, Target("Tesla T4", (75,), is_local=True)) == "gridsample"
    assert (
        build_engine._default_warp(replace(tensorrt, runtime="tensorrt_rtx"), request_for_h200.target) == "gridsample"
    )


def test_the_machine_is_the_one_that_the_service_looks_for(request_for_h200: BuildRequest) -> None:
    assert request_for_h200.machine == Machine("NVIDIA H200", "9.0", "tensorrt", "11.4.0")


def test_a_request_can_not_change_during_the_build(request_for_h200: BuildRequest) -> None:
    with pytest.raises(FrozenInstanceError):
        request_for_h200.precision = "fp32"  # type: ignore[misc]


def test_a_failed_call_is_an_error_with_tensorrts_messages() -> None:
    library = Library(SimpleNamespace(__version__="11.4.0"), "tensorrt", None, ["no kernel for layer 7"])
    assert library.require("an engine", "build the engine") == "an engine"
    for result in (None, False):
        with pytest.raises(RuntimeError, match=r"^tensorrt 11.4.0 could not build the engine:\nno kernel for layer 7$"):
            library.require(result, "build the engine")
