"""benchmarks/gpu/once.sh: its limits, its table and the pieces of wheels, without a GPU and without measuring."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu" / "once.sh"


def run(out: Path, *parts: str, stand_in: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHON": sys.executable, "OUT": str(out), "CARRY": str(out / "carry"), **environment}
    if stand_in:
        variables["STAND_IN"] = "1"
    command = ["bash", str(SCRIPT), *parts]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.mark.parametrize("script", ["once.sh", "pack.sh"])
def test_the_scripts_are_valid(script: str) -> None:
    subprocess.run(["bash", "-n", str(SCRIPT.parent / script)], check=True)  # noqa: S603, S607


def test_a_part_that_fails_or_is_too_slow_does_not_end_the_others(tmp_path: Path) -> None:
    """With a python that fails, one that waits, and the real one."""
    for name, action in (("slow", "exec sleep 60"), ("broken", "exit 3")):
        (tmp_path / name).write_text(
            f'#!/bin/sh\ncase "$*" in *summary*) exec {sys.executable} "$@";; esac\n{action}\n'
        )
        (tmp_path / name).chmod(0o755)
    script = (
        SCRIPT.read_text().replace("part machine 15", "part machine 1").replace('cd "$(dirname "$0")/../.."', "true")
    )
    (tmp_path / "once.sh").write_text(script)

    def with_python(name: str) -> str:
        variables = {**os.environ, "PYTHON": str(tmp_path / name), "OUT": str(tmp_path / "out"), "CARRY": str(tmp_path)}
        command = ["bash", str(tmp_path / "once.sh"), "1", "7"]
        done = subprocess.run(  # noqa: S603
            command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == 0, done.stderr
        return (tmp_path / "out" / "parts.txt").read_text()

    assert [line.split("  ")[-1] for line in with_python("broken").splitlines()] == ["failed with code 3"] * 2
    (tmp_path / "once.sh").write_text(script.replace("part tactics 60", "part tactics 1"))
    assert [line.split("  ")[-1] for line in with_python("slow").splitlines()] == ["stopped at its limit"] * 2


def test_every_row_is_computed_by_a_stand_in(tmp_path: Path) -> None:
    done = run(tmp_path, "1", "4")
    table = (tmp_path / "parts.txt").read_text()
    assert table.count("done") == 3, done.stdout + "".join(log.read_text() for log in tmp_path.glob("*.log"))
    assert "stand-in: 1 GB/s" in done.stdout
    for operation in ("aggregate 8x4x6 2x3", "upsample_argmax 3x4x6 8x12"):
        assert done.stdout.count(operation) == 2  # channels last and planar


def test_a_wheel_in_pieces_is_joined_and_installed(tmp_path: Path) -> None:
    wheels = tmp_path / "carry" / "wheels"
    wheels.mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "pieces-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("pieces.py", "VALUE = 7\n")
        archive.writestr("pieces-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: pieces\nVersion: 1.0\n")
        archive.writestr("pieces-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("pieces-1.0.dist-info/RECORD", "")
    content = (tmp_path / "pieces-1.0-py3-none-any.whl").read_bytes()
    for suffix, piece in (("aa", content[:200]), ("ab", content[200:400]), ("ac", content[400:])):
        (wheels / f"pieces-1.0-py3-none-any.whl.{suffix}").write_bytes(piece)
    done = run(tmp_path, "1")
    assert (tmp_path / "site" / "pieces.py").read_text() == "VALUE = 7\n", done.stderr


def test_the_gpu_tests_are_collected_without_the_plugins_of_pytest() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--collect-only",
        "-p",
        "no:asyncio",
        "-p",
        "no:timeout",
        "tests/gpu",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout
