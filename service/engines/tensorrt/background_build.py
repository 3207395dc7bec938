"""ALIGNSEG_BUILD_ENGINE=auto: a missing TensorRT engine is built while another runtime serves.

It is built by a process of its own, since building takes gigabytes and the export's packages; the service never
imports them. When the engine is there, the model folder has changed, and the service exchanges its runtime for it.
"""

import importlib.util
import logging
import subprocess
import sys
import threading
from pathlib import Path

log = logging.getLogger("alignseg.build")
BUILDER = "model_export.build_engine"
_started: set[tuple[Path, str]] = set()  # once a model: what failed would fail again, and keep the GPU busy with it
_lock = threading.Lock()


def start(folder: Path, model: str, command: list[str] | None = None) -> threading.Thread | None:
    """Build an engine for the model in `folder`, once for each that comes to lie there.

    model: what an engine depends on, its ONNX and its buckets. Returns the thread that waits for the build; None if it
    was tried or can't be done.
    """
    with _lock:
        if (folder, model) in _started:
            log.info("no engine is built for %s: it was tried before for the same model", folder)
            return None
        _started.add((folder, model))
    if command is None and importlib.util.find_spec("onnx") is None:
        log.warning(
            "ALIGNSEG_BUILD_ENGINE=auto needs onnx, onnxscript, onnx-ir, torch and safetensors; install these by name. "
            "(The extra `export` brings onnxruntime, which would displace onnxruntime-gpu.)"
        )
        return None
    thread = threading.Thread(
        target=_build, args=(folder, command or [sys.executable, "-m", BUILDER, str(folder)]), name="build", daemon=True
    )
    thread.start()
    return thread


def _build(folder: Path, command: list[str]) -> None:
    log.info("building an engine for %s in the background", folder)
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a command of our own
    last = (done.stderr if done.returncode else done.stdout).strip().splitlines()[-1:]
    level = logging.ERROR if done.returncode else logging.INFO
    log.log(level, "the build for %s ended with %d: %s", folder, done.returncode, *(last or ["no output"]))
