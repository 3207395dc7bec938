"""The checkpoint road: checkpoint -> network -> ONNX -> engine, handed on as a folder weights/<model>/."""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ImportError("PyTorch is not installed. In the checkout: pip install -e '.[export]', or make dev")
