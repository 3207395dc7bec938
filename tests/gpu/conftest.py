"""What needs an NVIDIA GPU: `make test-gpu`. Each test skips, and says so, where its GPU or runtime is missing."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

LITE = Path(__file__).parents[2] / "weights" / "alignseg-lite"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.timeout(900))
            # What torch.compile and other libraries warn of depends on the GPU; told at the end, it fails nothing here.
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(autouse=True)
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU, or a PyTorch without CUDA")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("TRITON_INTERPRET=1 is set, by other tests perhaps: run `make test-gpu`")
    return torch.device("cuda")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped model with one of its buckets, without the engines that may lie beside it."""
    for name in ("model.onnx", "model.safetensors"):
        shutil.copy(LITE / name, tmp_path)
    told = json.loads((LITE / "model.json").read_text())
    told["input"]["buckets"] = told["input"]["buckets"][:1]
    (tmp_path / "model.json").write_text(json.dumps(told))
    return tmp_path
