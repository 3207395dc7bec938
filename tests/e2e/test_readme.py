"""The README's commands are run as they stand, against the real server with the shipped weights."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.settings import REPOSITORY
from tests.support.server_process import Process

README = (REPOSITORY / "README.md").read_text()
CURLS = [line.split("  #")[0].strip() for line in README.splitlines() if line.startswith("curl ")]


@pytest.fixture(scope="module")
def url() -> Generator[str, None, None]:
    process = Process([sys.executable, "-m", "alignseg_serve", "serve", "--port", "0"])
    yield process.url
    assert process.stop() == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", CURLS)
def test_curl(command: str, url: str, tmp_path: Path) -> None:
    words = [word.replace("docs/", f"{REPOSITORY}/docs/") for word in shlex.split(command)]
    words = [word.replace("localhost:8000", url) for word in words]
    response = subprocess.run([*words, "-sS", "--fail"], cwd=tmp_path, capture_output=True, timeout=300, check=True)  # noqa: S603
    if "-o" in words:
        check_mask(tmp_path / words[words.index("-o") + 1])
    else:
        check_json(json.loads(response.stdout))


def check_mask(path: Path) -> None:
    with Image.open(path) as mask, Image.open(REPOSITORY / "docs" / "scene.png") as scene:
        assert (mask.mode, mask.size) == ("P", scene.size)
        assert len(np.unique(np.asarray(mask))) >= 4


def check_json(response: dict[str, object]) -> None:
    classes = response["classes"]
    assert isinstance(classes, list)
    shares = {entry["name"]: entry["fraction"] for entry in classes}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
    assert shares["road"] > 0.2  # it is a street, after all


def test_there_are_commands_to_run() -> None:
    assert len(CURLS) >= 2


def test_python_blocks() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 1
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", blocks[0]], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\(720, 960\)\n\[.*'road'.*\]\n", done.stdout), done.stdout
