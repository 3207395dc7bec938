"""Whole networks, picture in and class map out, by each runtime."""

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.gpu.timing import measure
from model_export import build_engine, export_onnx
from model_export.alignseg import AlignSeg
from model_export.plugins import ops
from model_export.serving_module import ServingModule
from service.contracts import Engine
from service.engines import cuda_runtime
from service.engines.onnx_cuda import OnnxCudaEngine
from service.engines.plan import PlanInfo
from service.engines.tensorrt import TensorRtEngine

MODELS = (("resnet101", 256, 19), ("resnet18", 128, 19))
SIZES = ((1024, 2048), (360, 480))


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """Milliseconds a batch of one, pictures a second; the copy to and from the GPU counts for the service's engines."""

    model: str
    size: str
    runtime: str
    ms: float | None
    pictures_a_second: float | None
    memory_mib: float | None
    why_not: str = ""


def rows() -> Iterator[NetworkRow]:
    """One row a model, size and runtime; what can't run here has no figures, and says why."""
    for backbone, channels, classes in MODELS:
        torch.manual_seed(0)
        network = AlignSeg(backbone, classes, channels=channels).eval()  # the time does not depend on the weights
        for size in SIZES:
            for runtime, measured in _runs(network, size):
                yield _row(f"{backbone}-{channels}", size, runtime, measured)


def _row(model: str, size: tuple[int, int], runtime: str, run: Callable[[], tuple[float, float]]) -> NetworkRow:
    told = f"{size[0]}x{size[1]}"
    try:
        ms, memory = run()
    except Exception as error:  # a missing runtime or too little memory is a line of the table
        return NetworkRow(model, told, runtime, None, None, None, str(error).splitlines()[0][:160])
    finally:
        torch.cuda.empty_cache()
    return NetworkRow(model, told, runtime, ms, 1e3 / ms, memory)


def _runs(network: AlignSeg, size: tuple[int, int]) -> Iterator[tuple[str, Callable[[], tuple[float, float]]]]:
    half, full = torch.float16, torch.float32
    yield "eager fp32", lambda: _torch(network, size, full)
    yield "eager fp16", lambda: _torch(network, size, half)
    yield "eager fp16, fused", lambda: _torch(network, size, half, fused=True)
    yield "torch.compile fp16", lambda: _torch(network, size, half, compiled=True)
    yield "torch.compile fp16, fused", lambda: _torch(network, size, half, fused=True, compiled=True)
    yield "ONNX Runtime CUDA fp32", lambda: _onnx(network, size)
    for warp in ("gridsample", "plugin"):
        for precision in ("fp32", "fp16"):
            yield f"TensorRT {precision}, {warp}", lambda w=warp, p=precision: _tensorrt(network, size, w, p)


@torch.inference_mode()
def _torch(
    network: AlignSeg, size: tuple[int, int], dtype: torch.dtype, *, fused: bool = False, compiled: bool = False
) -> tuple[float, float]:
    network = copy.deepcopy(network)
    module: Any = ServingModule(ops.fuse(network) if fused else network).to("cuda", dtype)
    module = module.to(memory_format=torch.channels_last)
    run = torch.compile(module, mode="max-autotune-no-cudagraphs") if compiled else module
    pictures = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8, device="cuda")
    timing = measure(lambda: run(pictures), repeats=30)
    return timing.ms, timing.peak_mib


def _onnx(network: AlignSeg, size: tuple[int, int]) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.onnx"
        onnx.save(export_onnx.to_onnx(network), path)
        return _engine(lambda: OnnxCudaEngine(path), size)


def _tensorrt(network: AlignSeg, size: tuple[int, int], warp: str, precision: str) -> tuple[float, float]:
    device = cuda_runtime.first_device()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.onnx"
        onnx.save(export_onnx.to_onnx(network), path)
        options = ["--bucket", f"{size[0]}x{size[1]}", "--batch", "1", "--no-verify"]
        if build_engine.main([str(path), "--warp", warp, "--precision", precision, *options]) != 0:
            raise RuntimeError("the engine was not built, see above")
        (description,) = (Path(name) / "engines").glob("*.json")
        info = PlanInfo.model_validate_json(description.read_bytes())
        return _engine(lambda: TensorRtEngine(description.with_suffix(".plan"), info, device), size)


def _engine(make: Callable[[], Engine], size: tuple[int, int]) -> tuple[float, float]:
    """By the clock, copies included, since that is what the service waits for."""
    free_before = torch.cuda.mem_get_info()[0]
    engine = make()
    batch = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    for _ in range(10):
        engine.infer(batch)
    times = []
    for _ in range(50):
        began = time.perf_counter()
        engine.infer(batch)
        times.append(time.perf_counter() - began)
    memory = (free_before - torch.cuda.mem_get_info()[0]) / 2**20
    engine.close()
    return sorted(times)[len(times) // 2] * 1e3, memory
