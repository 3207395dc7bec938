"""Writes an engine and its description into the model folder, or finds the one that is there."""

import hashlib
from collections.abc import Callable
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

Accept = Callable[[Path, PlanInfo], None]


def write(request: BuildRequest, plan: bytes, report: NetworkReport, loaded: LoadedModel, accept: Accept) -> Path:
    """Write the plan and its description, if `accept` raises nothing; else the folder stays as it was.

    accept: called with a temporary file that holds the plan, and its description. The plan gets its name only
    afterwards, so no server loads a plan that was rejected, or one whose comparison was interrupted.
    Returns the plan's path.
    """
    path = request.plan
    path.parent.mkdir(parents=True, exist_ok=True)
    description = path.with_suffix(".json")
    info = _describe(request, plan, report, loaded)
    with atomic_replace(path) as temporary:
        temporary.write_bytes(plan)
        accept(temporary, info)
        description.unlink(missing_ok=True)  # it describes the plan that is about to be replaced
    with atomic_replace(description) as temporary:
        temporary.write_text(info.model_dump_json(indent=2) + "\n")
    return path


def _describe(request: BuildRequest, plan: bytes, report: NetworkReport, loaded: LoadedModel) -> PlanInfo:
    name = str(request.plan.relative_to(request.source.folder))
    return PlanInfo(
        plan=FileEntry(path=name, sha256=hashlib.sha256(plan).hexdigest(), bytes=len(plan)),
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
