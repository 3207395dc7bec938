"""A published state dict with seeded values, from the key names and shapes alone."""

import importlib.util
import json
from pathlib import Path

import torch

GOLDEN = Path(__file__).parents[2] / "data" / "golden"
_spec = importlib.util.spec_from_file_location("seeded", GOLDEN / "seeded.py")
assert _spec is not None
assert _spec.loader is not None
seeded = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(seeded)


def published_state(seed: int = 1) -> dict[str, torch.Tensor]:
    """ResNet-101, 19 classes, in the published order of keys."""
    shapes = json.loads((GOLDEN / "state_dict_keys.json").read_text())
    return {key: _tensor(key, tuple(shape), seed) for key, shape in shapes}


def _tensor(key: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    values = torch.from_numpy(seeded.tensor(key, shape, seed)) if shape else torch.tensor(0.0)
    return values.long() if key.endswith("num_batches_tracked") else values.float()
