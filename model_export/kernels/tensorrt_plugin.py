"""AlignedAggregate and AlignedContext as TensorRT plugins. Importing this module registers them; it needs no GPU.

They are ahead-of-time plugins: TensorRT requests PTX during the build and embeds it, so the engine runs without Python.
tensorrt.plugin (10.9 and newer) checks annotations at run time, so they must be classes, not strings.
"""

from typing import Any

import tensorrt as trt
import tensorrt.plugin as trtp

from model_export.kernels.ptx import KernelName, Spec, Storage, compile_ptx
from model_export.kernels.tactics import Layout, Tactic, numbered
from model_export.onnx_export import custom_ops

AGGREGATE = f"{custom_ops.DOMAIN}::{custom_ops.AGGREGATE}"
CONTEXT = f"{custom_ops.DOMAIN}::{custom_ops.CONTEXT}"
_STORAGE: dict[Any, Storage] = {trt.DataType.FLOAT: "fp32", trt.DataType.HALF: "fp16", trt.DataType.BF16: "bf16"}
_CHANNELS_LAST = {"fp32": "HWC", "fp16": "HWC8", "bf16": "HWC8"}  # TensorRT's channels-last format of each type

architecture: int | None = None
"""Compute capability to compile for, e.g. 90; set by build_engine. None: that of the current CUDA device."""

AotKernel = tuple[str, str, trtp.KernelLaunchParams, trtp.SymExprs]


@trtp.register(AGGREGATE)
def describe_aggregate(
    low: trtp.TensorDesc, high: trtp.TensorDesc, offsets: trtp.TensorDesc, sampling: str
) -> trtp.TensorDesc:
    """The output has the shape and type of low."""
    return low.like()


@trtp.register(CONTEXT)
def describe_context(
    local: trtp.TensorDesc, context: trtp.TensorDesc, offsets: trtp.TensorDesc, sampling: str
) -> trtp.TensorDesc:
    """The output has the shape and type of local."""
    return local.like()


@trtp.autotune(AGGREGATE)
def tune_aggregate(
    low: trtp.TensorDesc, high: trtp.TensorDesc, offsets: trtp.TensorDesc, outputs: tuple[trtp.TensorDesc]
) -> list[trtp.AutoTuneCombination]:
    """The formats and tactics for TensorRT to time."""
    return _combinations(low, offsets)


@trtp.autotune(CONTEXT)
def tune_context(
    local: trtp.TensorDesc, context: trtp.TensorDesc, offsets: trtp.TensorDesc, outputs: tuple[trtp.TensorDesc]
) -> list[trtp.AutoTuneCombination]:
    """The formats and tactics for TensorRT to time."""
    return _combinations(local, offsets)


@trtp.aot_impl(AGGREGATE)
def build_aggregate(
    low: trtp.TensorDesc,
    high: trtp.TensorDesc,
    offsets: trtp.TensorDesc,
    sampling: str,
    outputs: tuple[trtp.TensorDesc],
    tactic: int,
) -> AotKernel:
    """Name, PTX, launch parameters and int32 scalars of the kernel."""
    kernel: AotKernel = _kernel("aligned_aggregate", low, high, offsets, sampling, tactic)
    return kernel


@trtp.aot_impl(CONTEXT)
def build_context(
    local: trtp.TensorDesc,
    context: trtp.TensorDesc,
    offsets: trtp.TensorDesc,
    sampling: str,
    outputs: tuple[trtp.TensorDesc],
    tactic: int,
) -> AotKernel:
    """Name, PTX, launch parameters and int32 scalars of the kernel."""
    kernel: AotKernel = _kernel("aligned_context", local, context, offsets, sampling, tactic)
    return kernel


def _combinations(raster: Any, offsets: Any) -> list[Any]:
    """Formats and tactics to choose from. The types are fixed, as the network is strongly typed."""
    storage, offset_storage, channels = _STORAGE[raster.dtype], _STORAGE[offsets.dtype], raster.shape[1]
    types = ",".join(name.upper() for name in (storage, storage, offset_storage, storage))
    planar = trtp.AutoTuneCombination(types, "LINEAR,LINEAR,LINEAR,LINEAR", list(numbered("planar", channels)))
    if channels % 8:  # HWC8 would pad the channels with unspecified values
        return [planar]
    last, tactics = _CHANNELS_LAST[storage], list(numbered("channels_last", channels))
    formats = (f"{last},{last},{offset_format},{last}" for offset_format in ("LINEAR", _CHANNELS_LAST[offset_storage]))
    return [planar, *(trtp.AutoTuneCombination(types, f, tactics) for f in formats)]


def _kernel(name: KernelName, raster: Any, other: Any, offsets: Any, sampling: str, number: int) -> Any:
    channels = raster.shape[1]
    layout: Layout = "planar" if raster.format == trt.TensorFormat.LINEAR else "channels_last"
    tactic = numbered(layout, channels)[number]
    spec = Spec(
        name,
        _STORAGE[raster.dtype],
        _STORAGE[offsets.dtype],
        channels,
        standard=_is_standard(sampling),
        pixel=0 if layout == "planar" else channels,
        offsets_pixel=_offsets_pixel(offsets),
        tactic=tactic,
    )
    compiled = compile_ptx(spec, architecture or current_architecture())
    sizes = trtp.SymIntExprs(4)
    for index, expression in enumerate((*_size(raster), *_size(other))):
        sizes[index] = trtp.SymInt32(expression)
    return (
        compiled.name,
        compiled.ptx,
        _launch(raster, tactic, channels, compiled.threads, compiled.shared_bytes),
        sizes,
    )


def _is_standard(sampling: str) -> bool:
    """Whether the convention is "standard". A C++ string may end in a zero. Raises ValueError for an unknown name."""
    name = sampling.rstrip("\0")
    if name not in {"standard", "published"}:
        raise ValueError(f"sampling is {sampling!r}; expected 'standard' or 'published'")
    return name == "standard"


def _launch(raster: Any, tactic: Tactic, channels: int, threads: int, shared_bytes: int) -> Any:
    """Tactic.grid on symbolic sizes: batch and raster are known only when the engine runs."""
    height, width = _size(raster)
    launch = trtp.KernelLaunchParams()
    launch.grid_x = trtp.cdiv(height, tactic.block_h) * trtp.cdiv(width, tactic.block_w)
    launch.grid_y = tactic.grid(1, 1, channels, 1)[1]
    launch.grid_z = raster.shape_expr[0]
    launch.block_x = threads
    launch.shared_mem = shared_bytes
    return launch


def _size(desc: Any) -> tuple[Any, Any]:
    return desc.shape_expr[2], desc.shape_expr[3]


def _offsets_pixel(offsets: Any) -> int:
    """Elements from one pixel to the next, 0 for planar. HWC8 pads the channels to a multiple of eight."""
    channels: int = offsets.shape[1]
    if offsets.format == trt.TensorFormat.LINEAR:
        return 0
    return channels if offsets.format == trt.TensorFormat.HWC else -(-channels // 8) * 8


def current_architecture() -> int:
    """Compute capability of the current CUDA device, e.g. 90. Raises RuntimeError when there is none."""
    from cuda.bindings import runtime  # noqa: PLC0415

    error, device = runtime.cudaGetDevice()
    if error != runtime.cudaError_t.cudaSuccess:
        raise RuntimeError(f"found no CUDA device to compile the plugin for ({error.name}); expected one GPU")
    _, properties = runtime.cudaGetDeviceProperties(device)
    return int(properties.major * 10 + properties.minor)
