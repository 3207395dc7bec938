"""Training and evaluation: from labelled images to a checkpoint and its accuracy."""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ImportError("PyTorch is not installed. In the checkout: pip install -e '.[train]', or make dev")
