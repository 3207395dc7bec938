"""Engines built for this GPU, compared with PyTorch; the service's runtimes on it, and their failures."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pydantic")
pytest.importorskip("onnxscript")

from model_export import build_engine, verify
from model_export.onnx_export import parity
from model_export.tensorrt_build.library import Library, NoTensorRTError, load
from service.engines import cuda
from service.engines.onnxruntime.cuda_engine import OnnxCudaEngine
from service.engines.onnxruntime.engine import OnnxRuntimeEngine
from service.engines.selection import open_engine
from service.engines.tensorrt import library as runtime_library
from service.engines.tensorrt.engine import TensorRtEngine
from service.errors import EngineError, EngineUnavailable
from service.model_folder import engine_plan
from service.model_folder import manifest as manifests
from service.settings import Settings
from tests.gpu.conftest import LITE
from tests.gpu.lost_device import require_device_lost
from tests.model_export.frames import frames

BUCKET = manifests.load(LITE).input.buckets[0]
SMALL = ["--batch", "1", "4"]


def library(runtime: str) -> Library:
    try:
        loaded = load(runtime)
    except NoTensorRTError as error:
        pytest.skip(str(error))
    device = cuda.first_device()
    if runtime == "tensorrt_rtx" and not hasattr(loaded.trt.ComputeCapability, f"SM{device.architecture}"):
        pytest.skip(f"TensorRT for RTX does not support {device.name}")
    return loaded


def images(count: int) -> Any:
    return np.stack([parity.resized(frames()[i % len(frames())], *BUCKET) for i in range(count)])


def built(folder: Path) -> tuple[Path, engine_plan.PlanInfo]:
    manifest = manifests.load(folder)
    return runtime_library.find_plan(folder, cuda.first_device(), manifest.files["onnx"].sha256, manifest.input.buckets)


def opened(folder: Path) -> TensorRtEngine:
    return TensorRtEngine(*built(folder), cuda.first_device())


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
    output = capsys.readouterr().out
    sys.stdout.write(output)  # the table, for the report or -s
    assert "FAILED" not in output and f"{runtime.replace('_', '-')}-{precision}-gpu0" in output


@pytest.fixture
def engine(engine_folder: Path) -> Iterator[TensorRtEngine]:
    opened_engine = opened(engine_folder)
    yield opened_engine
    opened_engine.close()


def test_graphs_compute_what_the_first_call_computed(engine: TensorRtEngine) -> None:
    for count in (1, 4, 2, 3, 1, 4):
        batch = images(count)
        first = engine.infer(batch, with_confidence=True)
        again = engine.infer(batch, with_confidence=True)
        np.testing.assert_array_equal(first.ids, again.ids)
        assert first.confidence is not None and again.confidence is not None
        np.testing.assert_array_equal(first.confidence, again.confidence)
        single = engine.infer(batch[:1]).ids
        assert (single == first.ids[:1]).mean() > 0.999
    assert all(shape.graph is not None for shape in engine._shapes.values() if shape.first_done)


def test_two_lanes_at_once_compute_what_one_computes(engine_folder: Path, engine: TensorRtEngine) -> None:
    second = TensorRtEngine(*built(engine_folder), cuda.first_device(), share_weights_with=engine)
    batches = [images(1 + i % 4) for i in range(40)]
    expected = [engine.infer(batch).ids for batch in batches]
    with ThreadPoolExecutor(2) as lanes:
        halves = [lanes.submit(lambda lane, own: [lane.infer(b).ids for b in own], *half)
                  for half in ((engine, batches[::2]), (second, batches[1::2]))]  # fmt: skip
    for half, own in zip(halves, (expected[::2], expected[1::2]), strict=True):
        for ids, one in zip(half.result(), own, strict=True):
            np.testing.assert_array_equal(ids, one)
    second.close()


def test_close_frees_gpu_memory(engine_folder: Path, engine: TensorRtEngine) -> None:
    runtime = cuda.load()
    engine.infer(images(4))

    def free() -> int:
        return int(runtime.cudaMemGetInfo()[1])

    before = free()
    for _ in range(5):
        another = opened(engine_folder)
        another.infer(images(4))
        another.close()
    assert before - free() < 64 * 2**20


def test_the_fastest_runtime_is_chosen(engine_folder: Path, engine: TensorRtEngine) -> None:
    chosen = open_engine(Settings(model=engine_folder), manifests.load(engine_folder))
    assert chosen.name == engine.name
    chosen.close()
    with pytest.raises(EngineError, match="no profile"):
        engine.infer(np.zeros((1, 64, 64, 3), dtype=np.uint8))


def test_onnx_runtime_cuda(folder: Path) -> None:
    try:
        on_gpu = OnnxCudaEngine(folder / "model.onnx")  # raises when a feature map is computed on the CPU
    except EngineUnavailable as error:
        pytest.skip(str(error))
    on_cpu = OnnxRuntimeEngine(folder / "model.onnx")
    for count in (1, 4):
        batch = images(count)
        result, expected = on_gpu.infer(batch, with_confidence=True), on_cpu.infer(batch, with_confidence=True)
        assert (result.ids == expected.ids).mean() > 0.9995
        assert result.confidence is not None and expected.confidence is not None
        assert np.abs(result.confidence.astype(int) - expected.confidence).mean() < 0.05
    on_gpu.close()


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_eight_bit_engines(folder: Path, capsys: pytest.CaptureFixture[str], precision: str) -> None:
    library("tensorrt")
    if precision == "fp8" and cuda.first_device().architecture < 89:
        pytest.skip("fp8 needs compute capability 8.9")
    data = Path(__file__).parents[1] / "data"
    arguments = [str(folder), "--runtime", "tensorrt", "--precision", precision, "--calibration", str(data), *SMALL]
    assert build_engine.main(arguments) == 0, capsys.readouterr()


def test_verify_as_a_command(engine_folder: Path, engine: TensorRtEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(engine_folder)]) == 0
    assert engine.name in capsys.readouterr().out


OPENING = """
import sys
from pathlib import Path
from tests.gpu.test_engines import images, opened
engine = opened(Path(sys.argv[1]))
"""


def test_a_sticky_error_means_a_lost_device(engine_folder: Path, engine: TensorRtEngine) -> None:
    require_device_lost(OPENING, engine_folder, timeout_s=300)
