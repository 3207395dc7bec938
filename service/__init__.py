"""The picture road: HTTP bytes -> decode -> prepare -> batch -> engine -> encode -> HTTP.

Nothing leaves this machine but answers. Two runtimes would tell their makers of each start, and keep an identifier in
the home folder; they must be stopped before they are loaded, so here.
"""

import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime from 1.29 on: docs/Privacy.md in its repository
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if not installed: OpenVINO has a stub
