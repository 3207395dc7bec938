"""What is told of a built engine, in a file beside it, and whether it fits this machine.

weights/<model>/engines/<gpu>-<runtime>-<version of it>-<precision>.plan and the same name with .json, written by
model_export/build_engine.py. A plan runs on the GPU and the TensorRT that it was built for, and nowhere else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import EngineUnavailable
from service.model_folder.manifest import FileEntry, sha256

FOLDER: Final = "engines"
Runtime = Literal["tensorrt", "tensorrt_rtx"]
Bucket = tuple[int, int]  # height, width


class PlanProfile(BaseModel):
    """An optimisation profile: pictures of `bucket`, (height, width), in batches of min_batch to max_batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bucket: Bucket
    min_batch: int = Field(ge=1)
    max_batch: int = Field(ge=1)


class PlanInfo(BaseModel):
    """The file beside a plan.

    gpu: its name, and compute_capabilities such as "9.0" that the plan runs on; TensorRT for RTX may name several.
    onnx_sha256: of the model it was built from. layers: how many the network had that TensorRT fused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    plan: FileEntry
    runtime: Runtime
    runtime_version: str
    gpu: str
    compute_capabilities: tuple[str, ...] = Field(min_length=1)
    precision: str
    warp: Literal["plugin", "gridsample"]
    profiles: tuple[PlanProfile, ...] = Field(min_length=1)
    num_classes: int = Field(ge=1, le=255)
    onnx_sha256: str
    layers: int
    built_by: str


@dataclass(frozen=True, slots=True)
class Machine:
    """Where an engine is to run: the GPU and the TensorRT that is installed."""

    gpu: str
    compute_capability: str
    runtime: Runtime
    runtime_version: str


Fits = Callable[[PlanInfo], str | None]


def find(
    folder: Path, machine: Machine, onnx_sha256: str, buckets: Sequence[Bucket], also: Fits = lambda info: None
) -> tuple[Path, PlanInfo]:
    """The newest plan in `folder`/engines that fits, with what is told of it.

    onnx_sha256, buckets: of the model that is to be served. also: a further reason against a plan, or None. Raises
    EngineUnavailable, saying why each plan that is there does not fit, and how to build one.
    """
    refused = []
    for path in sorted((folder / FOLDER).glob("*.json"), key=lambda p: -p.stat().st_mtime):
        plan = path.with_suffix(".plan")
        reason, info = _read(path, plan, folder)
        reason = reason or (misfit(info, machine, onnx_sha256, buckets) or also(info) if info else None)
        if reason is None and info is not None:
            return plan, info
        refused.append(f"{plan.name} {reason}")
    told = "; ".join(refused) or f"{folder / FOLDER} holds no engine"
    raise EngineUnavailable(f"{told}. {rebuild(folder)}")


def misfit(info: PlanInfo, machine: Machine, onnx_sha256: str, buckets: Sequence[Bucket]) -> str | None:
    """Why a plan can't serve the model here, or None."""
    if info.runtime != machine.runtime or info.runtime_version != machine.runtime_version:
        return f"is of {info.runtime} {info.runtime_version}, here is {machine.runtime} {machine.runtime_version}"
    if machine.compute_capability not in info.compute_capabilities:
        made = ", ".join(info.compute_capabilities)
        return f"is for {info.gpu} (compute capability {made}), here is {machine.gpu} ({machine.compute_capability})"
    if info.runtime == "tensorrt" and info.gpu != machine.gpu:
        return f"is for {info.gpu}, here is {machine.gpu}"
    if info.onnx_sha256 != onnx_sha256:
        return "was built from another ONNX than the model folder holds"
    missing = set(buckets) - {profile.bucket for profile in info.profiles}
    if missing:
        told = ", ".join(f"{height}x{width}" for height, width in sorted(missing))
        return f"has no profile for pictures of {told}, which the model folder asks for"
    return None


def rebuild(folder: Path) -> str:
    """The sentence that says how."""
    return f"Build one here with: python model_export/build_engine.py {folder}"


def _read(path: Path, plan: Path, folder: Path) -> tuple[str | None, PlanInfo | None]:
    try:
        info = PlanInfo.model_validate_json(path.read_bytes())
    except ValidationError:
        return "has a description that this version can't read", None
    if folder / info.plan.path != plan or not plan.is_file():
        return "is missing", None
    if plan.stat().st_size != info.plan.bytes or sha256(plan) != info.plan.sha256:
        return "is not the file that was built", None
    return None, info
