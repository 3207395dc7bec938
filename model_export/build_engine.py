"""python model_export/build_engine.py [SOURCE]: build a TensorRT engine, for this machine's GPU unless --arch is given.

Compares the engine with PyTorch on images, then writes it and its description to weights/<model>/engines/.
Exit codes: 0 built; 1 discarded, since its class maps differ from PyTorch's; 2 not built; 130 stopped by Ctrl-C.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

try:
    from onnx import ModelProto
    from pydantic import ValidationError

    from model_export import export
    from model_export.checkpoints.checkpoint import CheckpointError
    from model_export.files import exclusive_lock
    from model_export.onnx_export import parity
    from model_export.onnx_export.parity import ParityError
    from model_export.tensorrt_build import builder, graph, library, network, plan_writer, progress, source, target
    from model_export.tensorrt_build.graph import Warp
    from model_export.tensorrt_build.library import Library, NoTensorRTError
    from model_export.tensorrt_build.network import NetworkReport, WrongNetworkError
    from model_export.tensorrt_build.precision import PrecisionError
    from model_export.tensorrt_build.request import BuildRequest
    from service.errors import AlignSegError
    from service.files import exit_on_sigterm
    from service.model_folder import manifest as manifests
    from service.model_folder.engine_plan import PlanInfo, PlanProfile
    from service.settings import Settings
    from service.types import UInt8Array, parse_size
except ImportError as missing:
    if __name__ != "__main__":
        raise
    sys.stderr.write(
        f"error: {missing}. Building engines needs ONNX, PyTorch and TensorRT: pip install -e '.[export,tensorrt]', or "
        "for GeForce and RTX cards: pip install -e '.[export,rtx]'\n"
    )
    raise SystemExit(2) from None

CALIBRATION_IMAGES = 40
EIGHT_BIT = ("int8", "fp8")
_NOT_BUILT = (
    NoTensorRTError, WrongNetworkError, PrecisionError, CheckpointError, ParityError, ValidationError,
    AlignSegError, RuntimeError, OSError,
)  # fmt: skip


class _Disagreement(Exception):
    """The engine computes other class maps than PyTorch."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="          %(message)s", stream=sys.stderr)
    for name in ("onnx_ir", "onnxscript", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)  # a line for each tensor of an exported checkpoint
    try:
        with exit_on_sigterm(), tempfile.TemporaryDirectory() as scratch:
            return _run(options, Path(scratch))
    except _Disagreement as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except _NOT_BUILT as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped by Ctrl-C\n")
        return 130


def _run(options: argparse.Namespace, scratch: Path) -> int:
    """scratch: an empty folder for what a dry run must not leave behind."""
    request = _request(options, scratch if options.dry_run else None)
    where = "" if request.target.is_local else " (this machine's GPU is not used; --arch selects others)"
    _print("runtime", f"{request.library.runtime} {request.library.version} for {request.target.gpu}{where}")
    if options.dry_run:
        _parse(request, source.read(request.source.onnx).model)
        _print("dry run", "nothing is built")
        return 0
    on_wait = partial(_print, "wait", "another build for this model is running")
    with exclusive_lock(request.folder / ".building", on_wait):
        if options.if_missing and (path := plan_writer.reuse_existing(request)) is not None:
            _print("exists", f"{path} was built for the same options; nothing to build")
            return 0
        accept = (lambda path, info: None) if options.no_verify else partial(_verify, request, options.frames)
        _build(request, accept)
        return 0


def _request(options: argparse.Namespace, export_to: Path | None) -> BuildRequest:
    """The options with every default resolved. export_to: folder for a checkpoint's ONNX; None: beside it."""
    tensorrt = library.load(options.runtime)
    gpu = target.find(tensorrt, options.arch, options.precision)  # first: exporting a checkpoint takes a minute
    model = source.find(options.source or Settings().model, options.bucket, export_to)
    return BuildRequest(
        library=tensorrt,
        source=model,
        target=gpu,
        precision=options.precision,
        warp=options.warp or _default_warp(tensorrt, gpu),
        profiles=builder.profiles(model.buckets, options.batch),
        calibration=options.calibration,
        workspace_mib=options.workspace_mib,
    )


def _default_warp(tensorrt: Library, gpu: target.Target) -> Warp:
    """The plugin, where TensorRT accepts it and Triton compiles it: not for GPUs before compute capability 8.0."""
    return "plugin" if tensorrt.runtime == "tensorrt" and min(gpu.architectures) >= 80 else "gridsample"


def _build(request: BuildRequest, accept: plan_writer.Accept) -> None:
    """Build the engine and write it, unless `accept` raises an error."""
    loaded = source.read(request.source.onnx)
    trt_builder, trt_network, report = _parse(request, loaded.model)
    architectures = request.target.architectures if request.library.runtime == "tensorrt_rtx" else ()
    config = builder.configure(request.library, trt_builder, request.profiles, architectures, request.workspace_mib)
    builder.use_timing_cache(request.library, config, request.timing_cache)
    _print("build", f"{len(request.profiles)} profiles: {_describe(request.profiles)} ...")
    began = time.monotonic()
    with progress.report_progress(request.library, config, partial(_print, "...")):
        plan = builder.build(request.library, trt_builder, trt_network, config)
    _print("built", f"{len(plan) / 2**20:.1f} MiB in {time.monotonic() - began:.1f} s")
    path = plan_writer.write(request, plan, report, loaded, accept)
    builder.keep_timing_cache(request.library, config, request.timing_cache)
    _print("written", f"{path} and {path.with_suffix('.json').name}")


def _parse(request: BuildRequest, model: ModelProto) -> tuple[Any, Any, NetworkReport]:
    """TensorRT's builder, and its network, checked against the model."""
    _print("prepare", f"{request.source.onnx}: {request.precision}, {request.warp}")
    images = _calibration_images(request) if request.precision in EIGHT_BIT else []
    prepared = graph.prepare(model, request.precision, request.warp, images)
    if request.warp == "plugin":
        _register_plugin(request)
    tensorrt = request.library
    trt_builder = tensorrt.require(tensorrt.trt.Builder(tensorrt.logger), "create a builder")
    trt_network = network.parse(tensorrt, trt_builder, prepared)
    report = network.check(tensorrt, trt_network, prepared, request.warp)
    types = ", ".join(f"{count} {name}" for name, count in report.by_type.items())
    _print("network", f"{report.layers} layers: {types}")
    _print("warps", f"{report.warps} {request.warp} layers, as in the model; sampling is linear with zeros outside")
    return trt_builder, trt_network, report


def _calibration_images(request: BuildRequest) -> list[UInt8Array]:
    """At most CALIBRATION_IMAGES of the folder, evenly chosen, at the first bucket's size."""
    folder = request.calibration
    if folder is None or not folder.is_dir():
        raise FileNotFoundError(
            f"--precision {request.precision} needs a folder of typical images, got {folder}: --calibration FOLDER"
        )
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    chosen = files[:: max(1, len(files) // CALIBRATION_IMAGES)][:CALIBRATION_IMAGES]
    if not chosen:
        raise FileNotFoundError(f"--calibration {folder} contains no .jpg, .jpeg or .png file; expected typical images")
    _print("calibrate", f"{len(chosen)} of {len(files)} images")
    return [parity.resized(parity.read_image(path), *request.source.buckets[0]) for path in chosen]


def _register_plugin(request: BuildRequest) -> None:
    if request.library.runtime == "tensorrt_rtx":
        raise RuntimeError(
            "TensorRT for RTX accepts no plugins from Python. Use --warp gridsample, or --runtime tensorrt."
        )
    from model_export.kernels import tensorrt_plugin  # noqa: PLC0415 - imports tensorrt.plugin and registers

    tensorrt_plugin.architecture = request.target.architectures[0]


def _verify(request: BuildRequest, frames: Path | None, path: Path, info: PlanInfo) -> None:
    """Compare the engine with PyTorch if that is possible here. Raises _Disagreement."""
    folder = request.source.folder
    if not (folder / manifests.FILE_NAME).is_file():
        _print("verify", f"skipped: {folder} is not a model folder, so it names no checkpoint to compare with")
        return
    if not request.target.is_local:
        _print(
            "verify",
            f"skipped: this machine has no GPU. On a machine with a GPU, run: python model_export/verify.py {folder}",
        )
        return
    from model_export import verify  # noqa: PLC0415 - imports PyTorch

    _print("verify", "comparing with PyTorch on the CPU ...")
    if verify.run(folder, export.read_frames(frames), built=(path, info)) != 0:
        raise _Disagreement(
            f"the {info.precision} engine was discarded: its class maps differ from PyTorch's (table above). "
            "Use --precision fp32 or bf16, or --warp gridsample; --no-verify writes it without a comparison."
        )


def _describe(profiles: Sequence[PlanProfile]) -> str:
    batches = sorted({f"{profile.min_batch}-{profile.max_batch}" for profile in profiles})
    buckets = dict.fromkeys(f"{height}x{width}" for height, width in (profile.bucket for profile in profiles))
    return f"images of {', '.join(buckets)} in batches of {', '.join(batches)}"


def _print(stage: str, text: str) -> None:
    sys.stdout.write(f"{stage:9} {text}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build_engine.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, nargs="?",
        help="model folder, .onnx file or checkpoint;\ndefault: the model folder that the server serves",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=("fp32", "fp16", "bf16", *EIGHT_BIT), default="fp16", help="default: fp16"
    )
    parser.add_argument("--calibration", type=Path, help="folder of typical images, needed by int8 and fp8")
    parser.add_argument(
        "--warp",
        choices=("plugin", "gridsample"),
        help="sample with the fused kernel or with native layers;\ndefault: plugin; for TensorRT for RTX and "
        "GPUs\nbefore compute capability 8.0 gridsample",
    )
    parser.add_argument("--bucket", type=_bucket, nargs="+", help="HEIGHTxWIDTH ...; default: those of the model")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="batch sizes to tune for; default: 1 8")
    parser.add_argument("--runtime", choices=("tensorrt", "tensorrt_rtx"), help="default: the one that is installed")
    parser.add_argument("--arch", type=int, nargs="+", help="TensorRT for RTX: architectures to build for, e.g. 89 120")
    parser.add_argument("--workspace-mib", type=int, help="limit of TensorRT's scratch memory during the build")
    parser.add_argument("--frames", type=Path, help="image or folder to compare on; default: the demo scene")
    parser.add_argument("--if-missing", action="store_true", help="skip the build if this engine exists for this GPU")
    parser.add_argument("--no-verify", action="store_true", help="do not compare the engine with PyTorch")
    parser.add_argument("--dry-run", action="store_true", help="parse, check and report, but build nothing")
    return parser


def _bucket(text: str) -> tuple[int, int]:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
