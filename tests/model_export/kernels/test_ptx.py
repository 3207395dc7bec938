"""PTX for six architectures, compiled and assembled without a GPU, in a process without the interpreter."""

import ctypes
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model_export.kernels import ptx
from model_export.kernels.ptx import Compiled, PtxError
from model_export.kernels.tactics import TACTICS, Tactic, numbered, tactics
from tests.model_export.kernels import call_by_driver

ROOT = Path(__file__).parents[3]
TRITONS = ["", *os.environ.get("TRITON_FOLDERS", "").split(os.pathsep)]  # folders with other versions of Triton


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return compiled()


def compiled(*options: str, triton: str = "") -> list[dict[str, Any]]:
    """triton: folder to import it from; empty: the one that is installed."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([triton, str(ROOT)] if triton else [str(ROOT)])
    command = [sys.executable, "-m", "model_export.kernels.ptx", "--json", *options]
    result = subprocess.run(  # noqa: S603
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("triton", sorted(set(TRITONS)), ids=lambda path: Path(path).name or "installed")
def test_no_tactic_has_a_barrier_a_spill_or_narrow_loads(triton: str) -> None:
    """In any version of Triton: the users' one differs from the one that was measured."""
    rows = compiled("--arch", "90", "--every", triton=triton)
    assert len(rows) == 2 * 2 * sum(len(tactics(layout, 256)) for layout in TACTICS)
    for row in rows:
        case = [row[key] for key in ("name", "layout", "storage", "tile")]
        assert (row["barriers"], row["spilled_bytes"], row["stack_bytes"], row["shared_bytes"]) == (0, 0, 0, 0), case
        assert "bar.sync" not in row["ptx"] and "ld.local" not in row["ptx"], case
        assert row["registers"] <= 128, case  # four programs of four warps on a multiprocessor
        if row["layout"] == "channels last":  # every load of a map, and there are 13 or 5 taps
            taps = 13 if row["name"] == "aligned_aggregate" else 5
            assert row["vector_loads"] >= taps and row["vector_loads"] % taps == 0, case
            assert not re.search(r"ld\.global\.(v2|b32)", row["ptx"]), case


def test_compiles_and_assembles_for_every_architecture(rows: list[dict[str, Any]]) -> None:
    variants = {(row["architecture"], row["name"], row["layout"]) for row in rows}
    kernels, layouts = ("aligned_aggregate", "aligned_context"), ("channels last", "planar")
    assert variants == {(a, k, layout) for a in (80, 86, 89, 90, 100, 120) for k in kernels for layout in layouts}
    assert all(0 < row["registers"] <= 128 and row["spilled_bytes"] == 0 for row in rows)


def test_newer_architectures_get_a_newer_ptx_version() -> None:
    versions = {
        row["architecture"]: re.search(r"\.version (\S+)", row["ptx"]) for row in compiled("--arch", "103", "121")
    }
    assert {a: version and version[1] for a, version in versions.items()} == {103: "8.8", 121: "8.8"}


def test_the_kernels_parameters_are_those_that_tensorrt_passes(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        entry = re.search(r"\.visible \.entry \w+\((.*?)\)", row["ptx"], re.DOTALL)
        assert entry is not None
        types = re.findall(r"\.param \.(\w+)", entry[1])
        assert types == ["u64"] * 3 + ["u32"] * 4 + ["u64"]  # three inputs, four sizes, one output
        assert row["threads"] == 128 and row["shared_bytes"] == 0
        assert ".reqntid 128" in row["ptx"]
        assert "aligned_sampling.py" not in row["ptx"]


def test_the_driver_gets_the_arguments_that_the_ptx_has(rows: list[dict[str, Any]]) -> None:
    """The call of tests/gpu/test_ptx_driver.py, recorded instead of launched."""
    row = next(row for row in rows if row["architecture"] == 90)
    compiled_kernel = Compiled(row["name"], row["ptx"], row["threads"], row["shared_bytes"])
    calls: dict[str, tuple[Any, ...]] = {}

    def record(name: str) -> Any:
        return lambda *arguments: calls.setdefault(name, arguments) and (0, name)

    names = ("cuModuleLoadData", "cuModuleGetFunction", "cuLaunchKernel")
    driver = SimpleNamespace(CUresult=SimpleNamespace(CUDA_SUCCESS=0), **{name: record(name) for name in names})
    low, high, offsets = torch.zeros(2, 8, 5, 6), torch.zeros(2, 8, 3, 4), torch.zeros(2, 4, 5, 6)
    call_by_driver.run(driver, compiled_kernel, (3, 1, 2), (low, high, offsets), low)
    assert calls["cuModuleLoadData"] == (row["ptx"].encode() + b"\0",)
    assert calls["cuModuleGetFunction"] == ("cuModuleLoadData", row["name"].encode())
    function, *launch, (values, types), extra = calls["cuLaunchKernel"]
    assert (function, launch, extra) == ("cuModuleGetFunction", [3, 1, 2, 128, 1, 1, 0, 0], 0)
    pointers = [x.data_ptr() for x in (low, high, offsets)]
    assert values == (*pointers, 5, 6, 3, 4, low.data_ptr())
    assert [ctypes.sizeof(kind) for kind in types] == [8, 8, 8, 4, 4, 4, 4, 8]


def test_scratch_that_the_kernel_uses_is_an_error() -> None:
    kernel = (
        ".visible .entry k(\n\t.param .u64 k_param_0,\n\t.param .u64 k_param_1\n)\n{\n ld.param.b64 %r, [k_param_1];\n}"
    )
    with pytest.raises(PtxError, match="expected 1, and no use of any others"):
        ptx.without_scratch(kernel, 1)
    with pytest.raises(PtxError, match="expected one kernel"):
        ptx.without_scratch("", 1)
    with pytest.raises(PtxError, match="expected 3"):
        ptx.without_scratch(kernel, 3)


def test_the_interpreter_compiles_no_ptx() -> None:
    spec = next(ptx.variants())
    with pytest.raises(PtxError, match="Unset it"):
        ptx.compile_ptx(spec, 90)


def test_tactics_fit_the_channels_and_keep_their_numbers() -> None:
    assert Tactic(2, 8, 64, 4).grid(5, 33, 65, 2) == (3 * 5, 2, 2)
    assert Tactic(2, 8, 64, 4).lanes == 8
    assert all(tactic.lanes == 1 for tactic in TACTICS["planar"])
    for layout, every in TACTICS.items():
        for channels in (1, 8, 64, 256):
            chosen = numbered(layout, channels)
            assert tuple(chosen.values()) == tactics(layout, channels)
            assert chosen and all(every[number - 1] == tactic for number, tactic in chosen.items())
    assert tactics("channels_last", 64)[0].block_c == 64
    assert [t.block_c for t in tactics("channels_last", 8)] == [32]
