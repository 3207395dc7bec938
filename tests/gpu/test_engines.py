"""Engines built for this GPU, compared with PyTorch; the service's runtimes on it; how they fail."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_export import build_engine, verify
from model_export.onnx_export import parity
from model_export.tensorrt_build import library as trt_library
from model_export.tensorrt_build.library import NoTensorRTError
from service.engines import cuda as cuda_runtime
from service.engines.onnxruntime.cuda_engine import OnnxCudaEngine
from service.engines.onnxruntime.engine import OnnxRuntimeEngine
from service.engines.selection import open_engine
from service.engines.tensorrt import engine as tensorrt
from service.engines.tensorrt import library as tensorrt_library
from service.errors import EngineError, EngineUnavailable
from service.model_folder import engine_plan
from service.model_folder import manifest as manifests
from service.settings import Settings
from tests.gpu.conftest import LITE
from tests.model_export.frames import frames

BUCKET = manifests.load(LITE).input.buckets[0]
SMALL = ["--batch", "1", "4"]


def library(runtime: str) -> trt_library.Library:
    try:
        loaded = trt_library.load(runtime)
    except NoTensorRTError as error:
        pytest.skip(str(error))
    device = cuda_runtime.first_device()
    if runtime == "tensorrt_rtx" and not hasattr(loaded.trt.ComputeCapability, f"SM{device.architecture}"):
        pytest.skip(f"TensorRT for RTX does not support {device.name}")
    return loaded


def pictures(count: int) -> Any:
    return np.stack([parity.resized(frames()[i % len(frames())], *BUCKET) for i in range(count)])


def built(folder: Path) -> tuple[Path, engine_plan.PlanInfo]:
    manifest, here = manifests.load(folder), tensorrt_library.machine(cuda_runtime.first_device())
    return engine_plan.find(folder, here, manifest.files["onnx"].sha256, manifest.input.buckets)


def opened(folder: Path) -> tensorrt.TensorRtEngine:
    return tensorrt.TensorRtEngine(*built(folder), cuda_runtime.first_device())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize(
    ("runtime", "warp"), [("tensorrt", "plugin"), ("tensorrt", "gridsample"), ("tensorrt_rtx", "gridsample")]
)
def test_built_engines_compute_what_pytorch_computes(
    folder: Path, capsys: pytest.CaptureFixture[str], runtime: str, warp: str, precision: str
) -> None:
    library(runtime)
    arguments = [str(folder), "--runtime", runtime, "--warp", warp, "--precision", precision, *SMALL]
    assert build_engine.main(arguments) == 0, capsys.readouterr()
    told = capsys.readouterr().out
    sys.stdout.write(told)  # the table, for whoever runs this with -s or reads the report
    assert "BREACH" not in told and f"{runtime.replace('_', '-')}-{precision}-gpu0" in told


@pytest.fixture
def engine(folder: Path) -> Any:
    for runtime in ("tensorrt", "tensorrt_rtx"):
        try:
            library(runtime)
        except pytest.skip.Exception:
            continue
        assert build_engine.main([str(folder), "--runtime", runtime, *SMALL]) == 0
        made = opened(folder)
        yield made
        made.close()
        return
    pytest.skip("no TensorRT that supports this GPU is installed")


def test_graphs_give_what_the_first_call_gave(engine: tensorrt.TensorRtEngine) -> None:
    for count in (1, 4, 2, 3, 1, 4):
        batch = pictures(count)
        first = engine.infer(batch, with_confidence=True)
        again = engine.infer(batch, with_confidence=True)
        np.testing.assert_array_equal(first.ids, again.ids)
        assert first.confidence is not None and again.confidence is not None
        np.testing.assert_array_equal(first.confidence, again.confidence)
        single = engine.infer(batch[:1]).ids
        assert (single == first.ids[:1]).mean() > 0.999
    assert all(shape.graph is not None for shape in engine._shapes.values() if shape.met)


def test_two_lanes_at_once_give_what_one_gives(folder: Path, engine: tensorrt.TensorRtEngine) -> None:
    second = tensorrt.TensorRtEngine(*built(folder), cuda_runtime.first_device(), beside=engine)
    batches = [pictures(1 + i % 4) for i in range(40)]
    expected = [engine.infer(batch).ids for batch in batches]
    with ThreadPoolExecutor(2) as lanes:
        halves = [lanes.submit(lambda lane, own: [lane.infer(b).ids for b in own], *half)
                  for half in ((engine, batches[::2]), (second, batches[1::2]))]  # fmt: skip
    for half, own in zip(halves, (expected[::2], expected[1::2]), strict=True):
        for ids, one in zip(half.result(), own, strict=True):
            np.testing.assert_array_equal(ids, one)
    second.close()


def test_memory_is_given_back(folder: Path, engine: tensorrt.TensorRtEngine) -> None:
    cuda = cuda_runtime.load()
    engine.infer(pictures(4))

    def free() -> int:
        return int(cuda.cudaMemGetInfo()[1])

    before = free()
    for _ in range(5):
        another = opened(folder)
        another.infer(pictures(4))
        another.close()
    assert before - free() < 64 * 2**20


def test_the_best_runtime_is_chosen(folder: Path, engine: tensorrt.TensorRtEngine) -> None:
    chosen = open_engine(Settings(model=folder), manifests.load(folder))
    assert chosen.name == engine.name
    chosen.close()
    with pytest.raises(EngineError, match="no profile"):
        engine.infer(np.zeros((1, 64, 64, 3), dtype=np.uint8))


def test_onnx_runtime_cuda(folder: Path) -> None:
    try:
        on_gpu = OnnxCudaEngine(folder / "model.onnx")  # refuses feature maps on the CPU
    except EngineUnavailable as error:
        pytest.skip(str(error))
    on_cpu = OnnxRuntimeEngine(folder / "model.onnx")
    for count in (1, 4):
        batch = pictures(count)
        result, expected = on_gpu.infer(batch, with_confidence=True), on_cpu.infer(batch, with_confidence=True)
        assert (result.ids == expected.ids).mean() > 0.9995
        assert result.confidence is not None and expected.confidence is not None
        assert np.abs(result.confidence.astype(int) - expected.confidence).mean() < 0.05
    on_gpu.close()


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_eight_bit_engines(folder: Path, capsys: pytest.CaptureFixture[str], precision: str) -> None:
    library("tensorrt")
    if precision == "fp8" and cuda_runtime.first_device().architecture < 89:
        pytest.skip("fp8 needs compute capability 8.9")
    data = Path(__file__).parents[1] / "data"
    arguments = [str(folder), "--runtime", "tensorrt", "--precision", precision, "--calibration", str(data), *SMALL]
    assert build_engine.main(arguments) == 0, capsys.readouterr()


def test_verify_as_a_command(folder: Path, engine: tensorrt.TensorRtEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(folder)]) == 0
    assert engine.name in capsys.readouterr().out


STICKY = """
import os
import sys
import numpy as np, torch
from pathlib import Path
from service.errors import DeviceLost
from tests.gpu.test_engines import opened, pictures
engine = opened(Path(sys.argv[1]))
engine.infer(pictures(1))
torch.zeros(4, device="cuda")[torch.tensor([10**6], device="cuda")]  # a device-side assertion: the context is lost
try:
    engine.infer(pictures(1))
except DeviceLost:
    os._exit(42)  # on a lost context, what the libraries do at the end may abort
"""


def test_a_sticky_error_is_told_as_a_lost_engine(folder: Path, engine: tensorrt.TensorRtEngine) -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", STICKY, str(folder)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 42, done.stderr
