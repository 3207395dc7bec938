"""What all tests share: Triton's interpreter, and a real street scene."""

import os
from pathlib import Path

import pytest

CAMVID = Path(__file__).resolve().parents[2] / "shared" / "camvid"


def pytest_configure(config: pytest.Config) -> None:
    """Select Triton's interpreter before any test module can import triton, except for the tests that need a GPU."""
    gpu = Path(__file__).parent / "gpu"
    paths = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    if not all(path.is_relative_to(gpu) for path in paths):
        os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """The options of plugins that may be missing on a GPU machine, where unknown ones would end `pytest tests/gpu`."""
    options = {"asyncio": ("asyncio_mode", "asyncio_default_fixture_loop_scope"), "timeout": ("timeout",)}
    for plugin, names in options.items():
        if not pluginmanager.hasplugin(plugin):
            for name in names:
                parser.addini(name, f"ignored without pytest-{plugin}")


@pytest.fixture
def camvid_frame() -> Path:
    """A real street scene; the test is skipped where the data set is not at hand."""
    frames = sorted((CAMVID / "val" / "images").glob("*.jpg"))
    if not frames:
        pytest.skip(f"no CamVid frames under {CAMVID}")
    return frames[0]
