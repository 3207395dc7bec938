"""A process whose CUDA context is lost between two calls of an engine; in a process of its own, which it ends."""

import subprocess
import sys
from pathlib import Path

_AFTER_OPENING = """
import os, torch
from service.errors import DeviceLost
engine.infer(images(1))
torch.zeros(4, device="cuda")[torch.tensor([10**6], device="cuda")]  # a device-side assertion: the context is lost
try:
    engine.infer(images(1))
except DeviceLost:
    os._exit(42)  # the libraries' clean-up may abort on a lost context
"""


def require_device_lost(opening: str, folder: Path, timeout_s: float) -> None:
    """Assert that the second call raises DeviceLost. opening: code that defines engine and images from sys.argv[1]."""
    command = [sys.executable, "-c", opening + _AFTER_OPENING, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)  # noqa: S603
    assert result.returncode == 42, result.stderr
