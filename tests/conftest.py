"""Fixtures that several rooms share."""

from pathlib import Path

import pytest

CAMVID = Path(__file__).resolve().parents[2] / "shared" / "camvid"


@pytest.fixture
def camvid_frame() -> Path:
    """A real street scene; the test is skipped where the data set is not at hand."""
    frames = sorted((CAMVID / "val" / "images").glob("*.jpg"))
    if not frames:
        pytest.skip(f"no CamVid frames under {CAMVID}")
    return frames[0]
