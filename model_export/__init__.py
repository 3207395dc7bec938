"""Exports a model: checkpoint -> network -> ONNX -> engine, handed to the service as a folder weights/<model>/."""

from importlib.util import find_spec

import service  # noqa: F401 - disables the telemetry of runtimes before anything here loads them

if find_spec("torch") is None:
    raise ImportError(
        "PyTorch is not installed; model_export needs it. In the checkout: pip install -e '.[export]', or make dev"
    )
