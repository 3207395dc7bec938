"""What is said when CUDA can not be used."""

import sys
from pathlib import Path

import pytest

from service.engines import cuda
from service.errors import EngineUnavailable


def test_without_a_gpu_a_missing_cuda_package_is_not_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setattr(cuda, "_DRIVER_FILES", ())
    with pytest.raises(EngineUnavailable, match="this machine has no NVIDIA GPU"):
        cuda.first_device()


def test_with_a_driver_the_missing_cuda_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setattr(cuda, "_DRIVER_FILES", (tmp_path,))
    with pytest.raises(EngineUnavailable, match=r"cuda-python is not installed .*pip install"):
        cuda.first_device()
