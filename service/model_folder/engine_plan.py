"""The description of a built TensorRT engine (a plan), and whether it fits this machine.

weights/<model>/engines/<gpu>-<runtime>-<version>-<precision>.plan and the same name with .json, both written by
model_export/build_engine.py. A plan runs only on the GPU and the TensorRT version that it was built for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import EngineUnavailable
from service.model_folder.manifest import FileEntry, sha256
from service.types import Size

FOLDER: Final = "engines"
Runtime = Literal["tensorrt", "tensorrt_rtx"]


class PlanProfile(BaseModel):
    """An optimisation profile: images of `bucket`, (height, width), in batches of min_batch to max_batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bucket: Size
    min_batch: int = Field(ge=1)
    max_batch: int = Field(ge=1)


class PlanInfo(BaseModel):
    """The JSON file beside a plan.

    gpu: name of the GPU it was built on.
    compute_capabilities: those that the plan runs on, such as "9.0"; with TensorRT for RTX there may be several.
    onnx_sha256: of the model it was built from. layers: number of layers of the network, before fusion.
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
    """The GPU and the installed TensorRT of this machine."""

    gpu: str
    compute_capability: str
    runtime: Runtime
    runtime_version: str


Fits = Callable[[PlanInfo], str | None]


def find(
    folder: Path, machine: Machine, onnx_sha256: str, buckets: Sequence[Size], also: Fits = lambda info: None
) -> tuple[Path, PlanInfo]:
    """The newest plan in `folder`/engines that fits, with its description.

    onnx_sha256, buckets: of the model to serve. also: returns a further reason against a plan, or None.
    Raises EngineUnavailable, which says why each plan does not fit and how to build one.
    """
    reasons = []
    for path in sorted((folder / FOLDER).glob("*.json"), key=lambda p: -p.stat().st_mtime):
        plan = path.with_suffix(".plan")
        reason, info = _read(path, plan, folder)
        reason = reason or (misfit(info, machine, onnx_sha256, buckets) or also(info) if info else None)
        if reason is None and info is not None:
            return plan, info
        reasons.append(f"{plan.name} {reason}")
    misfits = "; ".join(reasons) or f"{folder / FOLDER} contains no engine"
    raise EngineUnavailable(f"{misfits}. {rebuild(folder)}")


def misfit(info: PlanInfo, machine: Machine, onnx_sha256: str, buckets: Sequence[Size]) -> str | None:
    """Why a plan can't serve the model on this machine, or None."""
    built_for, installed = (f"{one.runtime} {one.runtime_version}" for one in (info, machine))
    if built_for != installed:
        return f"was built for {built_for}, installed is {installed}"
    if machine.compute_capability not in info.compute_capabilities:
        built_for = f"{info.gpu} (compute capability {', '.join(info.compute_capabilities)})"
        return f"was built for {built_for}, this GPU is {machine.gpu} ({machine.compute_capability})"
    if info.runtime == "tensorrt" and info.gpu != machine.gpu:
        return f"was built for {info.gpu}, this GPU is {machine.gpu}"
    if info.onnx_sha256 != onnx_sha256:
        return "was built from another ONNX file, not from the one in the model folder"
    missing = set(buckets) - {profile.bucket for profile in info.profiles}
    if missing:
        sizes = ", ".join(f"{height}x{width}" for height, width in sorted(missing))
        return f"has no profile for the model folder's buckets {sizes}"
    return None


def rebuild(folder: Path) -> str:
    """The sentence that says how to build an engine."""
    return f"Build one here with: python model_export/build_engine.py {folder}"


def _read(path: Path, plan: Path, folder: Path) -> tuple[str | None, PlanInfo | None]:
    try:
        info = PlanInfo.model_validate_json(path.read_bytes())
    except ValidationError:
        return "has a description that this version cannot read", None
    if folder / info.plan.path != plan or not plan.is_file():
        return "is missing", None
    if plan.stat().st_size != info.plan.bytes or sha256(plan) != info.plan.sha256:
        return "is not the file that was built (size or sha256 differs)", None
    return None, info
