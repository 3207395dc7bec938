"""The stand-in that tests/gpu/test_stand_in_engine.py runs on a GPU, here on a fake of CUDA: the tests' own logic."""

from pathlib import Path
from typing import Any

import pytest

from service.engines import cuda
from tests.gpu import test_stand_in_engine
from tests.service.engines.tensorrt.fake_cuda_and_tensorrt import FakeCuda


@pytest.mark.parametrize(
    "test", [test_stand_in_engine.test_every_batch_size_is_a_graph_and_computes_the_same,
             test_stand_in_engine.test_close_frees_the_memory],
)  # fmt: skip
def test_on_a_fake_of_cuda(test: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCuda()
    monkeypatch.setattr(cuda, "load", lambda: fake)
    test(fake, tmp_path, monkeypatch)
