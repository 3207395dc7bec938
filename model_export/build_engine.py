"""python model_export/build_engine.py weights/<model>: a TensorRT engine from a model folder, an ONNX or a checkpoint.

Each stage is said. The engine is written to weights/<model>/engines/ with its description beside it, and then compared
with PyTorch on real pictures. Exit codes: 0 built, 1 built, but it does not compute what PyTorch computes, 2 not built,
130 stopped by Ctrl-C.
"""

import argparse
import logging
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnx import ModelProto
from pydantic import ValidationError

from model_export import export
from model_export.checkpoints.checkpoint import CheckpointError
from model_export.files import alone, replacing
from model_export.onnx_export import parity
from model_export.onnx_export.parity import ParityError
from model_export.tensorrt_build import builder as trt_engine
from model_export.tensorrt_build import graph, progress
from model_export.tensorrt_build import library as trt_library
from model_export.tensorrt_build import network as trt_network
from model_export.tensorrt_build import source as trt_source
from model_export.tensorrt_build import target as trt_target
from model_export.tensorrt_build.library import Library, NoTensorRTError
from model_export.tensorrt_build.network import Report, WrongNetworkError
from model_export.tensorrt_build.precision import PrecisionError
from model_export.tensorrt_build.source import Loaded, Source
from model_export.tensorrt_build.target import Target
from service.errors import AlignSegError, EngineUnavailable
from service.model_folder import engine_plan as plan_files
from service.model_folder import manifest as manifests
from service.model_folder.engine_plan import FOLDER, Machine, PlanInfo, PlanProfile
from service.model_folder.manifest import FileEntry
from service.types import UInt8Array, parse_size

CALIBRATION_PICTURES = 40
EIGHT_BIT = ("int8", "fp8")
_NOT_BUILT = (
    NoTensorRTError, WrongNetworkError, PrecisionError, CheckpointError, ParityError, ValidationError,
    AlignSegError, RuntimeError, OSError,
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="          %(message)s", stream=sys.stderr)
    try:
        library = trt_library.load(options.runtime)
        source = trt_source.find(options.source, options.bucket)
        target = trt_target.find(library, options.arch, options.precision)
        _say("runtime", f"{library.runtime} {library.version} for {target.gpu}")
        if options.warp is None:
            options.warp = "gridsample" if library.runtime == "tensorrt_rtx" else "plugin"
        if options.dry_run:
            return _build(library, source, target, options)
        with alone(
            source.folder / FOLDER / ".building", partial(_say, "wait", "another build for this model is running")
        ):
            if options.if_missing and _there(source, target, library, options):
                return 0
            return _build(library, source, target, options)
    except _NOT_BUILT as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; nothing was written\n")
        return 130


def _build(library: Library, source: Source, target: Target, options: argparse.Namespace) -> int:
    wanted = trt_engine.profiles(source.buckets, options.batch)
    _say("prepare", f"{source.onnx}: {options.precision}, {options.warp}")
    pictures = _calibration(options, source) if options.precision in EIGHT_BIT else []
    loaded = trt_source.read(source.onnx)
    model = graph.prepare(loaded.model, options.precision, options.warp, pictures)
    builder, network, report = _parse(library, model, target, options)
    if options.dry_run:
        _say("dry run", "nothing is built")
        return 0
    cache = source.folder / FOLDER / f"{_slug(target.gpu)}-{library.runtime}-{library.version}.timing"
    architectures = target.architectures if library.runtime == "tensorrt_rtx" else ()
    config = trt_engine.configure(library, builder, wanted, architectures, options.workspace_mib)
    trt_engine.use_timing_cache(library, config, cache)
    _say("build", f"{len(wanted)} profiles: {_told(wanted)} ...")
    began = time.monotonic()
    with progress.following(library, config, partial(_say, "...")):
        plan = trt_engine.build(library, builder, network, config)
    trt_engine.keep_timing_cache(library, config, cache)
    _say("built", f"{len(plan) / 2**20:.1f} MiB in {time.monotonic() - began:.1f} s")
    path = _write(library, source, target, plan, wanted, report, options, loaded)
    return _verify(source, path, target, options)


def _calibration(options: argparse.Namespace, source: Source) -> list[UInt8Array]:
    """The folder's pictures at the first bucket's size, CALIBRATION_PICTURES at most, evenly chosen."""
    if options.calibration is None or not options.calibration.is_dir():
        raise FileNotFoundError(f"{options.precision} needs a folder of typical pictures: --calibration FOLDER")
    files = sorted(p for p in options.calibration.iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    chosen = files[:: max(1, len(files) // CALIBRATION_PICTURES)][:CALIBRATION_PICTURES]
    if not chosen:
        raise FileNotFoundError(f"{options.calibration} holds no .jpg or .png")
    _say("calibrate", f"{len(chosen)} of {len(files)} pictures")
    return [parity.resized(parity.read_picture(path), *source.buckets[0]) for path in chosen]


def _parse(library: Library, model: ModelProto, target: Target, options: argparse.Namespace) -> tuple[Any, Any, Report]:
    if options.warp == "plugin":
        _register_plugin(library, target)
    builder = library.require(library.trt.Builder(library.logger), "create a builder")
    network = trt_network.parse(library, builder, model)
    report = trt_network.check(library, network, model, options.warp)
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())
    _say("network", f"{report.layers} layers: {kinds}")
    _say("warps", f"{report.warps} {options.warp} layers, as many as the model has; sampling is linear, zeros outside")
    return builder, network, report


def _register_plugin(library: Library, target: Target) -> None:
    if library.runtime == "tensorrt_rtx":
        raise RuntimeError("TensorRT for RTX takes no plugins from Python. Use --warp gridsample, or `tensorrt`.")
    from model_export.kernels import tensorrt_plugin  # noqa: PLC0415 - TensorRT only where it is used

    tensorrt_plugin.architecture = target.architectures[0]


def _write(
    library: Library, source: Source, target: Target, plan: bytes, wanted: list[PlanProfile], report: Report,
    options: argparse.Namespace, loaded: Loaded,
) -> Path:  # fmt: skip
    """The plan, then its description: without that, nobody takes the plan for one."""
    folder = source.folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_slug(target.gpu)}-{library.runtime}-{library.version}-{options.precision}.plan"
    description = path.with_suffix(".json")
    description.unlink(missing_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(plan)
    info = PlanInfo(
        plan=FileEntry.of(path, source.folder),
        runtime=library.runtime,
        runtime_version=library.version,
        gpu=target.gpu,
        compute_capabilities=tuple(f"{a // 10}.{a % 10}" for a in target.architectures),
        precision=options.precision,
        warp=options.warp,
        profiles=tuple(wanted),
        num_classes=trt_source.num_classes(loaded.model),
        onnx_sha256=loaded.sha256,
        layers=report.layers,
        built_by=f"alignseg-serve {version('alignseg-serve')}",
    )
    with replacing(description) as temporary:
        temporary.write_text(info.model_dump_json(indent=2) + "\n")
    _say("written", f"{path} and {description.name}")
    return path


def _verify(source: Source, path: Path, target: Target, options: argparse.Namespace) -> int:
    if options.no_verify:
        return 0
    if not (source.folder / manifests.FILE_NAME).is_file():
        _say("verify", f"not done, since {source.folder} is no model folder and names no checkpoint to compare with")
        return 0
    if not target.here:
        _say("verify", f"not done, since there is no GPU here. There: python model_export/verify.py {source.folder}")
        return 0
    from model_export import verify  # noqa: PLC0415 - PyTorch only now

    return verify.run(source.folder, export.read_frames(options.frames), built=path)


def _there(source: Source, target: Target, library: Library, options: argparse.Namespace) -> bool:
    """Whether such an engine lies there already; then it is the newest again, which is the one that is served."""
    capability = f"{target.architectures[0] // 10}.{target.architectures[0] % 10}"
    machine = Machine(target.gpu, capability, library.runtime, library.version)

    wanted = trt_engine.profiles(source.buckets, options.batch)

    def other(info: PlanInfo) -> str | None:
        alike = (info.precision, info.warp, list(info.profiles)) == (options.precision, options.warp, wanted)
        return None if alike else "was built with other options"

    try:
        found, _ = plan_files.find(source.folder, machine, manifests.sha256(source.onnx), source.buckets, other)
    except EngineUnavailable:
        return False
    found.with_suffix(".json").touch()
    _say("there", f"{found} fits, nothing to build")
    return True


def _told(wanted: Sequence[PlanProfile]) -> str:
    batches = sorted({f"{item.min_batch}-{item.max_batch}" for item in wanted})
    buckets = dict.fromkeys(f"{height}x{width}" for height, width in (item.bucket for item in wanted))
    return f"pictures of {', '.join(buckets)} in batches of {', '.join(batches)}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _say(stage: str, text: str) -> None:
    sys.stdout.write(f"{stage:9} {text}\n")
    sys.stdout.flush()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="build_engine.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", type=Path, help="model folder, .onnx or checkpoint")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16", *EIGHT_BIT), default="fp16")
    parser.add_argument("--calibration", type=Path, help="int8, fp8: a folder of typical pictures to measure ranges on")
    parser.add_argument("--warp", choices=("plugin", "gridsample"), help="default: plugin; gridsample for RTX")
    parser.add_argument("--bucket", type=_bucket, nargs="+", help="HEIGHTxWIDTH ...; default: the manifest's")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="batch sizes to tune for; default: 1 8")
    parser.add_argument("--runtime", choices=("tensorrt", "tensorrt_rtx"), help="default: the one installed")
    parser.add_argument("--arch", type=int, nargs="+", help="RTX without a GPU: for these, e.g. 89 120")
    parser.add_argument("--workspace-mib", type=int, help="limit of scratch memory while building")
    parser.add_argument("--frames", type=Path, help="pictures to verify with; default: the demo scene")
    parser.add_argument("--if-missing", action="store_true", help="do nothing where such an engine fits this machine")
    parser.add_argument("--no-verify", action="store_true", help="do not compare with PyTorch afterwards")
    parser.add_argument("--dry-run", action="store_true", help="parse, check and report, but build nothing")
    return parser.parse_args(arguments)


def _bucket(text: str) -> tuple[int, int]:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
