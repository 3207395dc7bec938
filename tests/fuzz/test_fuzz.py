"""Every file of the corpora runs through its target; where atheris is installed, a few seconds of new inputs do too."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from tests.fuzz.targets import CORPUS, TARGETS

ROOT: Final = Path(__file__).parents[2]
FILES: Final = sorted(path for path in CORPUS.glob("*/*"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_file_of_the_corpus(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_each_target_has_a_small_corpus() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert sum(path.stat().st_size for path in FILES) < 300_000


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.skipif(find_spec("atheris") is None, reason="needs atheris: make dev, on Linux x86_64")
def test_new_inputs_for_a_few_seconds(target: str, tmp_path: Path) -> None:
    options = ["-max_total_time=5", f"-artifact_prefix={tmp_path}/", "-seed=1"]
    # Through a shell that forks: a program started by this process would inherit its peak memory, which libFuzzer
    # compares with the fuzzer's limit.
    command = ["/bin/sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-m", "tests.fuzz.run", target, *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)  # noqa: S603
    assert result.returncode == 0, result.stderr[-4000:]
    assert "Done" in result.stderr
