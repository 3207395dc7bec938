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


@pytest.fixture(autouse=True)
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU, or a PyTorch without CUDA")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("TRITON_INTERPRET=1 is set, perhaps by other tests; run `make test-gpu`")
    return torch.device("cuda")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped model with one of its buckets and no engines."""
    shipped.copy_networks(tmp_path)
    manifest = json.loads((LITE / "model.json").read_text())
    manifest["input"]["buckets"] = manifest["input"]["buckets"][:1]
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    return tmp_path
