"""A server that can't start says why in one line of its log's format, before it loads anything."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support import tiny_model
from tests.support.server_process import REPOSITORY


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model.write(folder)
    return folder


@pytest.fixture
def taken() -> Generator[int, None, None]:
    """A port on which another process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def start(*arguments: object, **settings: object) -> list[str]:
    """The lines of `alignseg serve`, which ends with code 2."""
    environment = {**os.environ, **{f"ALIGNSEG_{name.upper()}": str(value) for name, value in settings.items()}}
    command = [sys.executable, "-m", "alignseg_serve", "serve", *map(str, arguments)]
    done = subprocess.run(  # noqa: S603
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()


def message(*arguments: object, **settings: object) -> str:
    """The one line in JSON."""
    (line,) = map(json.loads, start(*arguments, **{"log": "json"} | settings))
    assert (line["level"], line["logger"]) == ("critical", "alignseg.server")
    return str(line["message"])


@pytest.mark.parametrize("option", ["--port", "ALIGNSEG_PORT", "ALIGNSEG_ADMIN_PORT"])
def test_a_port_in_use(model: Path, taken: int, option: str) -> None:
    if option.startswith("--"):
        text = message("--model", model, option, taken)
    else:
        text = message(model=model, **{"port": 0} | {option.removeprefix("ALIGNSEG_").lower(): taken})
    assert text.startswith(f"Cannot listen on 127.0.0.1 port {taken}: Address already in use. Stop the process")
    assert option in text


def test_a_port_in_use_with_ray(model: Path, taken: int) -> None:
    pytest.importorskip("ray")
    assert f"port {taken}: Address already in use" in message("--model", model, "--port", taken, "--ray")


def test_two_ports_that_are_the_same(model: Path, taken: int) -> None:
    assert "are both" in message(model=model, port=taken, admin_port=taken)


def test_an_address_of_another_machine(model: Path) -> None:
    assert "must be an address of this machine" in message("--model", model, "--host", "192.0.2.1", "--port", 0)


def test_a_missing_model(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in message("--model", tmp_path / "none", "--port", 0)


def test_an_invalid_setting_in_text_is_one_line(tmp_path: Path) -> None:
    (line,) = start("--port", "0", log="text", engine="nothing", model=tmp_path)
    assert " CRITICAL alignseg.server: ALIGNSEG_ENGINE: " in line


def test_an_invalid_origin(model: Path) -> None:
    lines = start("--model", model, "--port", 0, log="json", cors_origins="foo")
    assert "ALIGNSEG_CORS_ORIGINS contains 'foo', which is not an origin" in json.loads(lines[-1])["message"]
