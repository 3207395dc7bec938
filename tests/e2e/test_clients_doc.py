"""The examples of docs/clients.md, run as they stand against the real server with the shipped weights."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from service.settings import REPOSITORY
from tests.support.server_process import Process

TEXT = (REPOSITORY / "docs" / "clients.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
(JAVASCRIPT,) = re.findall(r"```js\n(.*?)```", TEXT, re.DOTALL)
CURLS = [line.split("  #")[0].strip() for line in TEXT.splitlines() if line.startswith("curl ")]
(ECHO,) = [line for line in TEXT.splitlines() if line.startswith("echo ")]
OUTPUT = {  # by the package that a block imports
    "alignseg_serve": r"\(720, 960\)\n.*road +\d",
    "tritonclient": r"\(1, 720, 960\)",
    "huggingface": r"road 0\.\d+ \(960, 720\)",
}


@pytest.fixture(scope="module")
def url() -> Generator[str, None, None]:
    process = Process([sys.executable, "-m", "alignseg_serve", "serve", "--port", "0"])
    yield process.url
    assert process.stop() == 0


def run(command: list[str], cwd: Path = REPOSITORY) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("package", OUTPUT)
def test_python_block(package: str, url: str) -> None:
    (code,) = [block for block in PYTHON if package in block]
    output = run([sys.executable, "-W", "ignore", "-c", code.replace("localhost:8000", url.removeprefix("http://"))])
    assert re.search(OUTPUT[package], output, re.DOTALL), output


def test_every_python_block_is_run() -> None:
    assert len(PYTHON) == len(OUTPUT)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_javascript_block(url: str, tmp_path: Path) -> None:
    script = tmp_path / "example.mjs"
    script.write_text(JAVASCRIPT.replace("http://localhost:8000", url))
    output = run(["node", str(script)])
    assert re.search(r"^960 720\n.*road 0\.\d{3}", output, re.DOTALL), output


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_javascript_block_reports_a_problem(url: str, tmp_path: Path) -> None:
    script = tmp_path / "example.mjs"
    script.write_text(JAVASCRIPT.replace("http://localhost:8000", url).replace("docs/scene.png", "README.md"))
    command = ["node", str(script)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300)  # noqa: S603
    assert done.returncode == 1
    assert re.search(r"Error: 415 \S.*: \S", done.stderr), done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", CURLS)
def test_curl(command: str, url: str, tmp_path: Path) -> None:
    run(["sh", "-c", ECHO.replace("> ", f"> {tmp_path}/")])
    words = [word.replace("@docs/", f"@{REPOSITORY}/docs/") for word in shlex.split(command)]
    output = run([*(word.replace("localhost:8000", url) for word in words), "-sS", "--fail"], tmp_path)
    if "-o" in words:
        assert (tmp_path / "overlay.webp").read_bytes()[8:12] == b"WEBP"
        return
    response = json.loads(output)
    results = response["results"] if command.count("image=@") == 2 else [response]
    assert len(results) == command.count("image=@") or "--data-binary" in command
    for result in results:
        assert "road" in {entry["name"] for entry in result["classes"]}


def test_there_are_curl_commands() -> None:
    assert len(CURLS) >= 3
