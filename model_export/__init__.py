"""The checkpoint road: checkpoint -> network -> ONNX -> engine, handed on as a folder weights/<model>/."""

from importlib.util import find_spec

import service  # noqa: F401 - stops what would tell others, before anything here loads it

if find_spec("torch") is None:
    raise ImportError("PyTorch is not installed. In the checkout: pip install -e '.[export]', or make dev")
