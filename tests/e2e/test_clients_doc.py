"""The Python of docs/clients.md, run as it stands against the real server with the shipped weights."""

import re
import subprocess
import sys
from collections.abc import Generator

import pytest

from service.settings import REPOSITORY
from tests.e2e.test_server import Process

BLOCKS = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "clients.md").read_text(), re.DOTALL)
TOLD = {  # by the package that a block imports: what it prints
    "alignseg_serve": r"\(720, 960\)\n.*road +\d",
    "tritonclient": r"\(1, 720, 960\)",
    "huggingface": r"road 0\.\d+ \(960, 720\)",
}


@pytest.fixture(scope="module")
def url() -> Generator[str, None, None]:
    process = Process(REPOSITORY / "weights" / "alignseg-lite")
    yield process.url
    assert process.stop() == 0


@pytest.mark.parametrize("package", TOLD)
def test_block(package: str, url: str) -> None:
    (code,) = [block for block in BLOCKS if package in block]
    code = code.replace("localhost:8000", url.removeprefix("http://"))
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert re.search(TOLD[package], done.stdout, re.DOTALL), done.stdout


def test_every_block_is_run() -> None:
    assert len(BLOCKS) == len(TOLD)
