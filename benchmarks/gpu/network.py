"""Whole networks with each runtime, from images in host memory to class maps in host memory."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import timing, torch_ops
from model_export.alignseg import AlignSeg
from model_export.alignseg.backbone import BackboneName
from model_export.onnx_export.serving_module import ServingModule
from service.types import Engine, UInt8Array

MODELS: dict[BackboneName, int] = {"resnet101": 256, "resnet18": 128, "lite": 64}  # backbone: channels
SIZES = ((1024, 2048), (360, 480))
CLASSES = 19
BATCH = 8
COMPILE: dict[str, Any] = {"mode": "reduce-overhead"}  # CUDA graphs, as TensorRT uses

# What fits into minutes: benchmarks/gpu/once.sh.
ONCE: tuple[tuple[BackboneName, tuple[int, int], str], ...] = (
    ("resnet101", (1024, 2048), "eager fp16"), ("resnet101", (1024, 2048), "CUDA graph fp16, fused"),
    ("lite", (369, 481), "eager fp16"), ("lite", (369, 481), "CUDA graph fp16, fused"),
    ("resnet18", (360, 480), "eager fp16"), ("resnet18", (360, 480), "CUDA graph fp16, fused"),
    ("resnet18", (360, 480), "torch.compile fp16, fused"),
)  # fmt: skip

Infer = Callable[[UInt8Array], object]  # (N, H, W, 3) uint8 RGB; returns when the class maps are in host memory
Open = Callable[[], AbstractContextManager[Infer]]


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """ms: of one image. images_per_s: in batches of BATCH. memory_mib: of the GPU, for both. error: if not measured."""

    model: str
    size: str
    runtime: str
    ms: float | None
    images_per_s: float | None
    memory_mib: float | None
    error: str = ""


def rows() -> Iterator[tuple[str, Callable[[], NetworkRow]]]:
    """Yield the name of each row and the function that measures it."""
    for backbone, channels in MODELS.items():
        with tempfile.TemporaryDirectory() as name:
            model = _Model(backbone, channels, Path(name) / "model.onnx")
            for size in SIZES:
                for runtime, runs in _runtimes(model, size).items():
                    key = f"{backbone}-{channels} {size[0]}x{size[1]} {runtime}"
                    yield key, partial(_row, f"{backbone}-{channels}", size, runtime, runs)


def once() -> Iterator[tuple[str, Callable[[], NetworkRow]]]:
    """The rows of ONCE."""
    with tempfile.TemporaryDirectory() as name:
        for backbone, size, runtime in ONCE:
            model = _Model(backbone, MODELS[backbone], Path(name) / f"{backbone}.onnx")
            label = f"{backbone}-{MODELS[backbone]}"
            run = partial(_row, label, size, runtime, _runtimes(model, size)[runtime])
            yield f"{label} {size[0]}x{size[1]} {runtime}", run


class _Model:
    """Random weights: time does not depend on them. Built and exported on first use."""

    def __init__(self, backbone: BackboneName, channels: int, path: Path) -> None:
        self._backbone, self._channels, self._path = backbone, channels, path
        self._network: AlignSeg | None = None

    @property
    def network(self) -> AlignSeg:
        if self._network is None:
            torch.manual_seed(0)
            self._network = AlignSeg(self._backbone, CLASSES, channels=self._channels).eval()
        return self._network

    @property
    def onnx(self) -> Path:
        if not self._path.is_file():
            import onnx  # noqa: PLC0415 - only some runtimes need a file

            from model_export.onnx_export import exporter  # noqa: PLC0415

            onnx.save(exporter.to_onnx(self.network), self._path)
        return self._path


def _runtimes(model: _Model, size: tuple[int, int]) -> dict[str, Open]:
    half, full = torch.float16, torch.float32
    return {
        "eager fp32": partial(_torch, model, full),
        "eager fp16": partial(_torch, model, half),
        "eager fp16, fused": partial(_torch, model, half, fused=True),
        "CUDA graph fp16, fused": partial(_torch, model, half, fused=True, graph=True),
        "torch.compile fp16": partial(_torch, model, half, compiled=True),
        "torch.compile fp16, fused": partial(_torch, model, half, fused=True, compiled=True),
        "ONNX Runtime CUDA fp32": partial(_engine, partial(_onnx_cuda, model)),
    } | {
        f"TensorRT {precision}, {warp}": partial(_engine, partial(_tensorrt, model, size, warp, precision))
        for warp in ("gridsample", "plugin")
        for precision in ("fp32", "fp16")
    }


def _row(model: str, size: tuple[int, int], runtime: str, runs: Open) -> NetworkRow:
    shape = f"{size[0]}x{size[1]}"
    free = timing.free_memory()
    try:
        with runs() as infer:
            one, many = (_images(count, size) for count in (1, BATCH))
            ms = timing.by_clock(partial(infer, one))
            images_per_s = 1e3 * BATCH / timing.by_clock(partial(infer, many))
            memory = (free - timing.free_memory(release_cache=False)) / 2**20  # PyTorch's cache holds its peak
    except Exception as error:  # a missing runtime or too little memory is a row of the table
        return NetworkRow(model, shape, runtime, None, None, None, (str(error) or repr(error)).splitlines()[0][:160])
    return NetworkRow(model, shape, runtime, ms, images_per_s, memory)


def _images(count: int, size: tuple[int, int]) -> UInt8Array:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


@contextmanager
def _torch(
    model: _Model, dtype: torch.dtype, *, fused: bool = False, compiled: bool = False, graph: bool = False
) -> Iterator[Infer]:
    network = copy.deepcopy(model.network)
    module: Any = ServingModule(torch_ops.fuse(network) if fused else network).to(timing.DEVICE, dtype)
    module = module.to(memory_format=torch.channels_last)
    if compiled:
        torch._dynamo.reset()  # otherwise an earlier size makes it compile for dynamic sizes
        module = torch.compile(module, fullgraph=True, dynamic=False, **COMPILE)

    if graph:
        module = _Graphs(module)

    @torch.no_grad()
    def infer(images: UInt8Array) -> UInt8Array:
        class_map: UInt8Array = module(_to_device(images))[0].cpu().numpy()
        return class_map

    yield infer


class _Graphs:
    """A module as one CUDA graph for each shape of its input."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._captured: dict[torch.Size, tuple[torch.Tensor, timing.Run, list[Any]]] = {}

    def __call__(self, images: torch.Tensor) -> Any:
        if images.shape not in self._captured:
            static, results = images.clone(), []
            run = timing.graphed(lambda: results.append(self._module(static)))
            self._captured[images.shape] = static, run, results
        static, run, results = self._captured[images.shape]
        static.copy_(images)
        run()
        return results[-1]


def _to_device(images: UInt8Array) -> torch.Tensor:
    """Copy to the GPU through pinned memory, as the service's engines do."""
    on_host = torch.from_numpy(images)
    return (on_host.pin_memory() if timing.DEVICE == "cuda" else on_host).to(timing.DEVICE, non_blocking=True)


@contextmanager
def _engine(opens: Callable[[], Engine]) -> Iterator[Infer]:
    with closing(opens()) as engine:
        yield engine.infer


def _onnx_cuda(model: _Model) -> Engine:
    from service.engines.onnxruntime.cuda_engine import OnnxCudaEngine  # noqa: PLC0415

    return OnnxCudaEngine(model.onnx)


def _tensorrt(model: _Model, size: tuple[int, int], warp: str, precision: str) -> Engine:
    from model_export import build_engine  # noqa: PLC0415 - only where TensorRT may be
    from service.engines import cuda  # noqa: PLC0415
    from service.engines.tensorrt.engine import TensorRtEngine  # noqa: PLC0415
    from service.model_folder.engine_plan import PlanInfo  # noqa: PLC0415

    options = ["--bucket", f"{size[0]}x{size[1]}", "--batch", "1", str(BATCH), "--no-verify"]
    if build_engine.main([str(model.onnx), "--warp", warp, "--precision", precision, *options]) != 0:
        raise RuntimeError("the engine was not built; the messages above say why")
    descriptions = (model.onnx.parent / "engines").glob(f"*-{precision}.json")
    description = max(descriptions, key=lambda path: path.stat().st_mtime)
    info = PlanInfo.model_validate_json(description.read_bytes())
    return TensorRtEngine(description.with_suffix(".plan"), info, cuda.first_device())
