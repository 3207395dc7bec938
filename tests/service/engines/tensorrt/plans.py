"""Plans with descriptions, as build_engine.py writes them."""

from pathlib import Path
from typing import Any

from service.engines.cuda import Device
from service.model_folder.engine_plan import Machine, PlanInfo, PlanProfile
from service.model_folder.manifest import FileEntry

H200 = Device(0, "NVIDIA H200", 90)


HERE = Machine("NVIDIA H200", "9.0", "tensorrt", "11.4.0")


BUCKETS = ((8, 12), (12, 8))


def write_plan(folder: Path, name: str = "h200", **changes: Any) -> PlanInfo:
    """A plan in `folder`/engines with its description."""
    path = folder / "engines" / f"{name}.plan"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"plan")
    fields: dict[str, Any] = {
        "plan": FileEntry.of(path, folder), "runtime": "tensorrt", "runtime_version": "11.4.0", "gpu": "NVIDIA H200",
        "compute_capabilities": ("9.0",), "precision": "fp16", "warp": "plugin", "num_classes": 4,
        "profiles": (
            PlanProfile(bucket=(8, 12), min_batch=1, max_batch=4),
            PlanProfile(bucket=(12, 8), min_batch=1, max_batch=2),
        ),
        "onnx_sha256": "a" * 64, "layers": 1, "built_by": "a test",
    }  # fmt: skip
    info = PlanInfo(**fields | changes)
    path.with_suffix(".json").write_text(info.model_dump_json())
    return info
