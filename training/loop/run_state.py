"""The state of a run in one file, written atomically, from which it continues exactly where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from service.files import atomic_replace


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) so that a crash at any moment leaves a whole file."""
    with atomic_replace(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote. No code in the file is executed."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
