"""The README's commands are run as they stand, against the real server with the shipped weights."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.settings import REPOSITORY
from tests.e2e.test_server import Process

README = (REPOSITORY / "README.md").read_text()
CURLS = [line.split("  #")[0].strip() for line in README.splitlines() if line.startswith("curl ")]


@pytest.fixture(scope="module")
def url() -> Generator[str, None, None]:
    process = Process(REPOSITORY / "weights" / "alignseg-lite")
    yield process.url
    assert process.stop() == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", CURLS)
def test_curl(command: str, url: str, tmp_path: Path) -> None:
    words = [word.replace("docs/", f"{REPOSITORY}/docs/") for word in shlex.split(command)]
    words = [word.replace("localhost:8000", url) for word in words]
    answer = subprocess.run([*words, "-sS", "--fail"], cwd=tmp_path, capture_output=True, timeout=60, check=True)  # noqa: S603
    if "-o" in words:
        check_mask(tmp_path / words[words.index("-o") + 1])
    else:
        check_json(json.loads(answer.stdout))


def check_mask(path: Path) -> None:
    with Image.open(path) as mask, Image.open(REPOSITORY / "docs" / "scene.png") as scene:
        assert (mask.mode, mask.size) == ("P", scene.size)
        assert len(np.unique(np.asarray(mask))) >= 4


def check_json(answer: dict[str, object]) -> None:
    classes = answer["classes"]
    assert isinstance(classes, list)
    shares = {entry["name"]: entry["fraction"] for entry in classes}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
    assert shares["road"] > 0.2  # it is a street, after all


def test_there_are_commands_to_run() -> None:
    assert len(CURLS) >= 2


def test_every_file_it_names_exists() -> None:
    reading = README.split("## How to read this code")[1].split("```sh")[0]
    service, export = reading.split("**Checkpoint to engine**")
    for text, folder in ((service, "service"), (export, "model_export")):
        for name in re.findall(r"`([\w/]+(?:\.py|/))`", text):
            if name not in {"service/", "model_export/"} and not name.startswith("weights"):
                assert (REPOSITORY / folder / name).exists() or (REPOSITORY / folder / "alignseg" / name).exists(), name
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (REPOSITORY / link).exists(), link
