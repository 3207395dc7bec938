"""Everything a run needs to go on exactly where it stopped, in one file that is either whole or the one before."""

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
    """Read what `save_state` wrote; nothing in the file is run."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
