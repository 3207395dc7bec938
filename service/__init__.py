"""The online service: HTTP request -> decode -> letterbox -> batch -> engine -> render -> HTTP response.

Importing this package disables telemetry in ONNX Runtime and OpenVINO. Both would report each start to their vendors
and keep an identifier in the home folder, and both have to be stopped before they are imported.
"""

import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime from 1.29 on: docs/Privacy.md in its repository
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # OpenVINO then uses its own stub
