"""Which plan of a model folder fits this machine, and why the others do not."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.errors import EngineUnavailable
from service.model_folder import engine_plan
from service.model_folder.engine_plan import PlanProfile
from tests.service.engines.tensorrt.plans import BUCKETS, HERE, write_plan


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"runtime_version": "10.9"}, "was built for tensorrt 10.9, installed is tensorrt 11.4.0"),
        ({"runtime": "tensorrt_rtx"}, "was built for tensorrt_rtx 11.4.0"),
        ({"gpu": "NVIDIA L4", "compute_capabilities": ("8.9",)}, r"for NVIDIA L4 \(compute capability 8.9\)"),
        ({"gpu": "NVIDIA H100 PCIe"}, "was built for NVIDIA H100 PCIe, this GPU is NVIDIA H200"),
        ({"onnx_sha256": "b" * 64}, "another ONNX"),
        (
            {"profiles": (PlanProfile(bucket=(8, 12), min_batch=1, max_batch=4),)},
            "has no profile for the model folder's buckets 12x8",
        ),
    ],
)
def test_a_plan_for_another_machine_is_rejected_with_the_build_command(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    write_plan(tmp_path, **changes)
    with pytest.raises(EngineUnavailable, match=why + rf".*python model_export/build_engine.py {tmp_path}"):
        engine_plan.find(tmp_path, HERE, "a" * 64, BUCKETS)


def test_damaged_missing_and_unreadable_plans_are_distinguished(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="contains no engine"):
        engine_plan.find(tmp_path, HERE, "a" * 64, BUCKETS)
    for name in ("damaged", "missing", "unreadable"):
        write_plan(tmp_path, name)
    (tmp_path / "engines" / "damaged.plan").write_bytes(b"pla")
    (tmp_path / "engines" / "missing.plan").unlink()
    (tmp_path / "engines" / "unreadable.json").write_text("{}")
    with pytest.raises(EngineUnavailable) as caught:
        engine_plan.find(tmp_path, HERE, "a" * 64, BUCKETS)
    for text in ("damaged.plan is not the file", "missing.plan is missing", "unreadable.plan has a description"):
        assert text in str(caught.value)
    good = write_plan(tmp_path, "good")
    assert engine_plan.find(tmp_path, HERE, "a" * 64, BUCKETS) == (tmp_path / good.plan.path, good)


def test_the_description_is_plain_json(tmp_path: Path) -> None:
    write_plan(tmp_path)
    description = json.loads((tmp_path / "engines" / "h200.json").read_text())
    assert description["profiles"][0] == {"bucket": [8, 12], "min_batch": 1, "max_batch": 4}
