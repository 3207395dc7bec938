"""PTX for six architectures, compiled and assembled without a GPU, in a process without the interpreter."""

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from model_export.kernels import ptx
from model_export.kernels.ptx import PtxError
from model_export.kernels.tactics import TACTICS, Tactic, numbered, tactics


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return compiled()


def compiled(*options: str) -> list[dict[str, Any]]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "model_export.kernels.ptx", "--json", *options]
    result = subprocess.run(  # noqa: S603
        command, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_compiles_and_assembles_for_every_architecture(rows: list[dict[str, Any]]) -> None:
    variants = {(row["architecture"], row["name"], row["layout"]) for row in rows}
    kernels, layouts = ("aligned_aggregate", "aligned_context"), ("channels last", "planar")
    assert variants == {(a, k, layout) for a in (80, 86, 89, 90, 100, 120) for k in kernels for layout in layouts}
    assert all(0 < row["registers"] <= 128 and row["spilled"] <= 32 for row in rows)


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
        assert row["threads"] == 128 and row["shared_bytes"] <= 48 * 1024
        assert ".reqntid 128" in row["ptx"]
        assert "aligned_sampling.py" not in row["ptx"]


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
    assert Tactic(16, 64, 4).grid(33, 65, 2) == (3, 2, 2)
    for layout, every in TACTICS.items():
        for channels in (1, 8, 64, 256):
            chosen = numbered(layout, channels)
            assert tuple(chosen.values()) == tactics(layout, channels)
            assert chosen and all(every[number - 1] == tactic for number, tactic in chosen.items())
    assert tactics("channels_last", 64)[0].block_c == 64
    assert [t.block_c for t in tactics("channels_last", 8)] == [32]
