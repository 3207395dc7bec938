"""The serving engine on the real CUDA: graphs, two lanes, memory, sticky errors. Only TensorRT is replaced."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pydantic")

from service.engines import cuda
from service.engines.tensorrt import library
from service.engines.tensorrt.engine import TensorRtEngine
from tests.gpu.lost_device import require_device_lost
from tests.service.engines.tensorrt.plans import write_plan
from tests.support.stand_in_tensorrt import StandInTensorRT, expected, images


@pytest.fixture
def runtime() -> Any:
    pytest.importorskip("cuda.bindings.runtime")
    return cuda.load()


def opened(folder: Path, runtime: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> TensorRtEngine:
    trt = StandInTensorRT(runtime, repeats=options.pop("repeats", 1))
    monkeypatch.setattr(library, "installed", lambda runtime=None: (trt, "tensorrt"))
    info = write_plan(folder)
    return TensorRtEngine(folder / info.plan.path, info, cuda.first_device(), **options)


def test_every_batch_size_is_a_graph_and_computes_the_same(
    runtime: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(tmp_path, runtime, monkeypatch)
    engine.warm_up()
    assert engine._shapes and all(shape.graph is not None for shape in engine._shapes.values())
    for seed in range(3):
        for count in (1, 4, 2, 3):
            result = engine.infer(images(count, seed=seed), with_confidence=True)
            np.testing.assert_array_equal(result.ids, expected(images(count, seed=seed)))
            assert result.confidence is not None and (result.confidence == round(255 / 4)).all()
    engine.close()


def test_two_lanes_at_once(runtime: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(tmp_path, runtime, monkeypatch, repeats=50)
    second = opened(tmp_path, runtime, monkeypatch, repeats=50, share_weights_with=first)

    def run(lane: TensorRtEngine, seeds: range) -> None:
        for seed in seeds:
            batch = images(1 + seed % 4, seed=seed)
            np.testing.assert_array_equal(lane.infer(batch).ids, expected(batch))

    with ThreadPoolExecutor(2) as lanes:
        for done in [lanes.submit(run, first, range(0, 400, 2)), lanes.submit(run, second, range(1, 400, 2))]:
            done.result()
    second.close()
    first.close()


def test_close_frees_the_memory(runtime: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path, runtime, monkeypatch).close()  # what CUDA itself needs stays
    before = runtime.cudaMemGetInfo()[1]
    for _ in range(20):
        engine = opened(tmp_path, runtime, monkeypatch)
        engine.warm_up()
        engine.close()
    assert before - runtime.cudaMemGetInfo()[1] <= 4 * 2**20


OPENING = """
import sys
from pathlib import Path
import pytest
from service.engines import cuda
from tests.gpu.test_stand_in_engine import images, opened
engine = opened(Path(sys.argv[1]), cuda.load(), pytest.MonkeyPatch())
"""


def test_a_sticky_error_means_a_lost_device(runtime: Any, tmp_path: Path) -> None:
    require_device_lost(OPENING, tmp_path, timeout_s=120)
