"""Writes an engine and its description into the model folder, or finds the one that is there."""

from importlib.metadata import version
from pathlib import Path

from model_export.tensorrt_build import source
from model_export.tensorrt_build.network import NetworkReport
from model_export.tensorrt_build.request import BuildRequest
from model_export.tensorrt_build.source import LoadedModel
from service.errors import EngineUnavailable
from service.files import atomic_replace
from service.model_folder import engine_plan
from service.model_folder.engine_plan import PlanInfo
from service.model_folder.manifest import FileEntry, sha256


def write(request: BuildRequest, plan: bytes, report: NetworkReport, loaded: LoadedModel) -> Path:
    """Write the plan, then its description, without which the service ignores the plan. Returns the plan's path."""
    path = request.plan
    path.parent.mkdir(parents=True, exist_ok=True)
    description = path.with_suffix(".json")
    description.unlink(missing_ok=True)  # it describes the plan that is about to be replaced
    with atomic_replace(path) as temporary:
        temporary.write_bytes(plan)
    with atomic_replace(description) as temporary:
        temporary.write_text(_describe(request, report, loaded).model_dump_json(indent=2) + "\n")
    return path


def _describe(request: BuildRequest, report: NetworkReport, loaded: LoadedModel) -> PlanInfo:
    return PlanInfo(
        plan=FileEntry.of(request.plan, request.source.folder),
        runtime=request.library.runtime,
        runtime_version=request.library.version,
        gpu=request.target.gpu,
        compute_capabilities=request.target.compute_capabilities,
        precision=request.precision,
        warp=request.warp,
        profiles=request.profiles,
        num_classes=source.num_classes(loaded.model),
        onnx_sha256=loaded.sha256,
        layers=report.layers,
        built_by=f"alignseg-serve {version('alignseg-serve')}",
    )


def reuse_existing(request: BuildRequest) -> Path | None:
    """The path of an engine that was built for the same request; None when there is none.

    Its description is touched: of the engines that fit a machine, the service takes the newest.
    """

    def other_options(info: PlanInfo) -> str | None:
        built = info.precision, info.warp, info.profiles
        return None if built == (request.precision, request.warp, request.profiles) else "was built with other options"

    onnx_sha256, buckets = sha256(request.source.onnx), request.source.buckets
    try:
        path, _ = engine_plan.find(request.source.folder, request.machine, onnx_sha256, buckets, other_options)
    except EngineUnavailable:
        return None
    path.with_suffix(".json").touch()
    return path
