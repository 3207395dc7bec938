"""Every module can be imported on Windows, which lacks some modules and signals; what can't run there says so."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PREPARE = """
import signal, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty", "syslog", "uvloop"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGCHLD", "SIGALRM", "SIGKILL"):
    delattr(signal, name)
"""
IMPORT_ALL = """
import importlib, pkgutil
for name in {names}:
    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, name + "."):
        others = ("__main__", "tensorrt_plugin", "aligned_sampling", "alignseg_serve.cvat")
        if "ray" not in module.name and not module.name.endswith(others):
            importlib.import_module(module.name)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PREPARE + code]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.mark.parametrize("names", [("service", "alignseg_serve"), ("model_export", "training")], ids=str)
def test_every_module_can_be_imported(names: tuple[str, ...]) -> None:
    done = run(IMPORT_ALL.format(names=names))
    assert done.returncode == 0, done.stderr


def test_serve_says_where_it_runs() -> None:
    done = run("import sys; sys.argv = ['alignseg', 'serve']; from alignseg_serve.cli import main; main()")
    assert done.returncode == 2
    assert "runs on Linux and macOS" in done.stderr
    assert "Traceback" not in done.stderr


def test_building_an_engine_says_where_it_runs() -> None:
    done = run(
        "from pathlib import Path; from model_export.files import exclusive_lock as x\nwith x(Path('x'), print): 0"
    )
    assert "needs Linux or macOS" in done.stderr.splitlines()[-1]
