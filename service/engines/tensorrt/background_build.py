"""ALIGNSEG_BUILD_ENGINE=auto: builds a missing TensorRT engine in the background while another runtime serves.

The build runs in a process of its own, since it takes gigabytes of memory and the export's packages, which the service
never imports. The finished engine changes the model folder, and the service then reloads the model with it.
"""

import importlib.util
import logging
import subprocess
import sys
import threading
from pathlib import Path

log = logging.getLogger("alignseg.build")
BUILDER = "model_export.build_engine"
_started: set[tuple[Path, str]] = set()  # once a model: a failed build would fail again, and use the GPU each time
_lock = threading.Lock()


def start(folder: Path, model: str, command: list[str] | None = None) -> threading.Thread | None:
    """Build an engine for the model in `folder`, once for each model that is put there.

    model: identifies the model by what an engine depends on: its ONNX file and its buckets. command: the build to run
    instead of model_export.build_engine.
    Returns the thread that waits for the build; None when this model was tried before or packages are missing.
    """
    with _lock:
        if (folder, model) in _started:
            log.info("Not building an engine for %s: a build for this model was already started.", folder)
            return None
        _started.add((folder, model))
    if command is None and importlib.util.find_spec("onnx") is None:
        log.warning(
            "ALIGNSEG_BUILD_ENGINE=auto is set, but onnx is not installed, so no engine is built. Install the packages "
            "by name: pip install onnx onnxscript onnx-ir torch safetensors (the extra `export` would also install "
            "onnxruntime, which replaces onnxruntime-gpu)."
        )
        return None
    thread = threading.Thread(
        target=_build, args=(folder, command or [sys.executable, "-m", BUILDER, str(folder)]), name="build", daemon=True
    )
    thread.start()
    return thread


def _build(folder: Path, command: list[str]) -> None:
    log.info("Building a TensorRT engine for %s in the background.", folder)
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - not from user input
    lines = (result.stderr if result.returncode else result.stdout).strip().splitlines()
    level = logging.ERROR if result.returncode else logging.INFO
    last = lines[-1] if lines else "no output"
    log.log(level, "The engine build for %s ended with exit code %d: %s", folder, result.returncode, last)
