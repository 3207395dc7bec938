"""Tests that need an NVIDIA GPU: `make test-gpu`. Each is skipped, with the reason, without its GPU or runtime."""

import json
import os
from pathlib import Path

import pytest
import torch

from tests.model_export import shipped

LITE = Path(__file__).parents[2] / "weights" / "alignseg-lite"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.timeout(900))
            # The warnings of torch.compile and other libraries depend on the GPU; here they fail no test.
            item.add_marker(pytest.mark.filterwarnings("default"))


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("timeout"):
        config.addinivalue_line("markers", "timeout(seconds): ignored without pytest-timeout")


def require_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU, or a PyTorch without CUDA")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("TRITON_INTERPRET=1 is set, perhaps by other tests; run `make test-gpu`")


@pytest.fixture(autouse=True)
def gpu() -> torch.device:
    require_gpu()
    return torch.device("cuda")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped model with one of its buckets and no engines."""
    return _without_engines(tmp_path)


@pytest.fixture(scope="session")
def engine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an engine of the first TensorRT that supports this GPU, built once for all tests."""
    require_gpu()
    from model_export import build_engine
    from tests.gpu.test_engines import SMALL, library

    folder = _without_engines(tmp_path_factory.mktemp("engine"))
    for runtime in ("tensorrt", "tensorrt_rtx"):
        try:
            library(runtime)
        except pytest.skip.Exception:
            continue
        assert build_engine.main([str(folder), "--runtime", runtime, *SMALL]) == 0
        return folder
    pytest.skip("no TensorRT that supports this GPU is installed")


def _without_engines(tmp_path: Path) -> Path:
    shipped.copy_networks(tmp_path)
    manifest = json.loads((LITE / "model.json").read_text())
    manifest["input"]["buckets"] = manifest["input"]["buckets"][:1]
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    return tmp_path
