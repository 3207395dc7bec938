"""The TensorRT engine on fakes of CUDA and TensorRT; tests/gpu runs it on a GPU."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engines import cuda
from service.engines.tensorrt import library
from service.engines.tensorrt.engine import TensorRtEngine
from service.errors import DeviceLost, EngineError, EngineOutOfMemory, EngineUnavailable, ManifestError
from tests.service.engines.tensorrt.fake_cuda_and_tensorrt import (
    Error,
    FakeCuda,
    FakeTensorRT,
    FakeTensorRTForRTX,
)
from tests.service.engines.tensorrt.plans import H200, write_plan


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr(cuda, "load", lambda: fake)
    return fake


@pytest.fixture
def trt(fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    fake = FakeTensorRT(fake_cuda)
    monkeypatch.setattr(library, "installed", lambda runtime=None: (fake, "tensorrt"))
    return fake


@pytest.fixture
def engine(trt: FakeTensorRT, tmp_path: Path) -> TensorRtEngine:
    info = write_plan(tmp_path)
    return TensorRtEngine(tmp_path / info.plan.path, info, H200)


def images(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_batches_of_every_shape_run_as_graphs(engine: TensorRtEngine, fake_cuda: FakeCuda, trt: FakeTensorRT) -> None:
    assert (engine.name, engine.max_batch, engine.has_confidence) == ("tensorrt-fp16-gpu0", 4, True)
    for _ in range(3):
        for shape in ((1, 8, 12), (3, 8, 12), (4, 8, 12), (2, 12, 8)):
            batch = images(*shape)
            result = engine.infer(batch)
            np.testing.assert_array_equal(result.ids, batch[..., 0] % 4)
            assert result.confidence is None
    assert fake_cuda.calls.count("cudaGraphInstantiate") == 4  # one a shape, at its first batch
    assert fake_cuda.calls.count("cudaGraphLaunch") == 8
    assert trt.contexts == 4


def test_results_survive_the_next_batch(engine: TensorRtEngine) -> None:
    first = engine.infer(np.zeros((1, 8, 12, 3), dtype=np.uint8)).ids
    engine.infer(np.ones((1, 8, 12, 3), dtype=np.uint8))
    assert not first.any()


def test_logits_are_copied_only_for_a_confidence(engine: TensorRtEngine, fake_cuda: FakeCuda) -> None:
    batch = images(2, 8, 12)
    engine.infer(batch)
    before = fake_cuda.calls.count("cudaMemcpyAsync")
    engine.infer(batch)
    assert fake_cuda.calls.count("cudaMemcpyAsync") == before  # in the graph
    result = engine.infer(batch, with_confidence=True)
    assert fake_cuda.calls.count("cudaMemcpyAsync") == before + 1
    assert result.confidence is not None
    assert (result.confidence == 255).all() and result.confidence.shape == (2, 8, 12)


def test_without_a_graph_batches_run_call_by_call(
    engine: TensorRtEngine, trt: FakeTensorRT, fake_cuda: FakeCuda, caplog: pytest.LogCaptureFixture
) -> None:
    trt.refuse_capture = True
    for _ in range(3):
        batch = images(1, 8, 12)
        np.testing.assert_array_equal(engine.infer(batch).ids, batch[..., 0] % 4)
    assert fake_cuda.calls.count("cudaStreamBeginCapture") == 1
    assert "batches of (1, 8, 12, 3) run without a CUDA graph" in caplog.text


@pytest.mark.parametrize("call", ["cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_an_invalid_capture_fails_no_batch(engine: TensorRtEngine, fake_cuda: FakeCuda, call: str) -> None:
    fake_cuda.fails[call] = Error.cudaErrorInvalidValue
    for _ in range(3):
        batch = images(1, 8, 12)
        np.testing.assert_array_equal(engine.infer(batch).ids, batch[..., 0] % 4)
    assert fake_cuda.calls.count("cudaStreamBeginCapture") == 1
    assert fake_cuda.calls.count("cudaGraphLaunch") == 0
    assert fake_cuda.calls.count("cudaGraphDestroy") == (call == "cudaGraphInstantiate")


def test_a_sticky_error_means_a_lost_device(engine: TensorRtEngine, fake_cuda: FakeCuda) -> None:
    fake_cuda.fails["cudaEventSynchronize"] = Error.cudaErrorIllegalAddress
    with pytest.raises(DeviceLost, match="cudaErrorIllegalAddress"):
        engine.infer(images(1, 8, 12))


def test_a_sticky_error_that_only_tensorrts_own_runtime_saw_means_a_lost_device(
    engine: TensorRtEngine, fake_cuda: FakeCuda, trt: FakeTensorRT
) -> None:
    engine.infer(images(1, 8, 12))
    engine.infer(images(2, 8, 12))
    trt.fails = True
    engine._shapes[2, 8, 12, 3].graph = None
    fake_cuda.fails["cudaEventSynchronize"] = Error.cudaErrorIllegalAddress  # not cudaGetLastError
    with pytest.raises(DeviceLost, match="cudaErrorIllegalAddress"):
        engine.infer(images(2, 8, 12))


def test_warm_up_captures_every_batch_size(engine: TensorRtEngine, fake_cuda: FakeCuda) -> None:
    engine.warm_up()
    expected = {(n, 8, 12, 3) for n in (1, 2, 3, 4)} | {(n, 12, 8, 3) for n in (1, 2)}
    assert {images for images, shape in engine._shapes.items() if shape.graph is not None} == expected
    captured = fake_cuda.calls.count("cudaStreamBeginCapture")
    engine.infer(images(3, 8, 12))
    assert fake_cuda.calls.count("cudaStreamBeginCapture") == captured == 6


def test_a_failed_warm_up_frees_the_memory(engine: TensorRtEngine, fake_cuda: FakeCuda, trt: FakeTensorRT) -> None:
    trt.fails = True
    with pytest.raises(EngineError):
        engine.warm_up()
    assert fake_cuda.memory == {}


def test_the_thread_sleeps_while_it_waits(engine: TensorRtEngine, fake_cuda: FakeCuda) -> None:
    """cudaStreamSynchronize keeps a core busy; the fake does not even have it."""
    engine.infer(images(1, 8, 12))
    assert fake_cuda.event_flags == fake_cuda.cudaEventBlockingSync | fake_cuda.cudaEventDisableTiming
    assert fake_cuda.calls.count("cudaEventRecord") == fake_cuda.calls.count("cudaEventSynchronize") > 0


def test_a_plan_that_does_not_fit_into_memory_is_not_rebuilt(
    trt: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deserialize(plan: bytes) -> None:
        trt.logger.log(trt.ILogger.ERROR, "[defaultAllocator.cpp] OutOfMemory (Requested size was 9 bytes.)")

    monkeypatch.setattr(trt, "deserialize_cuda_engine", deserialize)
    info = write_plan(tmp_path)
    with pytest.raises(EngineOutOfMemory, match=r"Requested size was 9 bytes\.\)\. Free GPU memory"):
        TensorRtEngine(tmp_path / info.plan.path, info, H200)


def test_a_plan_of_either_runtime_is_chosen_where_both_are_installed(
    trt: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"tensorrt": trt, "tensorrt_rtx": FakeTensorRTForRTX(trt.cuda)}
    monkeypatch.setattr(library, "installed", lambda runtime=None: (both[runtime], runtime))
    info = write_plan(tmp_path, runtime="tensorrt_rtx", runtime_version="1.7.1")
    assert library.find_plan(tmp_path, H200, "a" * 64, [(8, 12)]) == (tmp_path / info.plan.path, info)
    with pytest.raises(EngineUnavailable, match=r"installed is tensorrt 11\.4\.0.* built from another ONNX file"):
        library.find_plan(tmp_path, H200, "b" * 64, [(8, 12)])


def test_other_errors_are_engine_errors(engine: TensorRtEngine, fake_cuda: FakeCuda, trt: FakeTensorRT) -> None:
    fake_cuda.fails["cudaEventSynchronize"] = Error.cudaErrorInvalidValue
    with pytest.raises(EngineError, match="cudaErrorInvalidValue") as caught:
        engine.infer(images(1, 8, 12))
    assert type(caught.value) is EngineError
    trt.fails = True
    with pytest.raises(EngineError, match="TensorRT logged no reason"):
        engine.infer(images(2, 8, 12))


def test_too_little_memory_is_reported_and_all_of_it_freed(
    trt: FakeTensorRT, fake_cuda: FakeCuda, tmp_path: Path
) -> None:
    fake_cuda.limit = 100
    info = write_plan(tmp_path)
    with pytest.raises(EngineOutOfMemory, match="allocating 1152 bytes for pictures failed"):
        TensorRtEngine(tmp_path / info.plan.path, info, H200)
    fake_cuda.limit = 5000  # enough for some of it
    with pytest.raises(EngineOutOfMemory):
        TensorRtEngine(tmp_path / info.plan.path, info, H200)
    assert fake_cuda.calls.count("cudaMalloc") > 0
    assert fake_cuda.memory == {}
    assert fake_cuda.calls.count("cudaStreamCreateWithFlags") == fake_cuda.calls.count("cudaStreamDestroy") == 2


def test_shapes_without_a_profile_are_rejected(engine: TensorRtEngine) -> None:
    with pytest.raises(EngineError, match=r"no profile for \(1, 9, 9, 3\).*--bucket"):
        engine.infer(images(1, 9, 9))
    with pytest.raises(EngineError, match="no profile"):
        engine.infer(images(3, 12, 8))


def test_close_frees_all_memory(engine: TensorRtEngine, fake_cuda: FakeCuda) -> None:
    engine.infer(images(1, 8, 12))
    engine.close()
    engine.close()
    assert fake_cuda.memory == {}
    with pytest.raises(EngineError, match="closed"):
        engine.infer(images(1, 8, 12))


def test_a_file_that_is_no_plan_is_rejected(trt: FakeTensorRT, tmp_path: Path) -> None:
    info = write_plan(tmp_path)
    (tmp_path / info.plan.path).write_bytes(b"nothing")
    with pytest.raises(ManifestError, match=r"magic tag does not match\. Build one here with: python model_export"):
        TensorRtEngine(tmp_path / info.plan.path, info, H200)


def test_a_plan_is_loaded_by_the_runtime_that_built_it(
    fake_cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, fake in (("tensorrt", FakeTensorRT(fake_cuda)), ("tensorrt_rtx", FakeTensorRTForRTX(fake_cuda))):
        monkeypatch.setitem(sys.modules, name, fake)  # type: ignore[arg-type]
    assert [machine.runtime for machine in library.machines(H200)] == ["tensorrt", "tensorrt_rtx"]
    info = write_plan(tmp_path, runtime="tensorrt_rtx")
    rtx = TensorRtEngine(tmp_path / info.plan.path, info, H200)
    assert rtx.name == "tensorrt-rtx-fp16-gpu0"
    batch = images(1, 8, 12)
    np.testing.assert_array_equal(
        rtx.infer(batch).ids, batch[..., 0] % 4
    )  # its kernels are compiled before the capture
    rtx.close()


def test_tensorrts_out_of_memory_message_is_recognised(engine: TensorRtEngine, trt: FakeTensorRT) -> None:
    trt.no_memory = True
    with pytest.raises(EngineOutOfMemory, match=r"can't create an execution context for profile 0: .*OutOfMemory"):
        engine.infer(images(2, 8, 12))
    trt.no_memory = False
    batch = images(2, 8, 12)
    np.testing.assert_array_equal(engine.infer(batch).ids, batch[..., 0] % 4)


def test_an_address_that_tensorrt_rejects_is_an_error(engine: TensorRtEngine, trt: FakeTensorRT) -> None:
    trt.refuses_addresses = True
    with pytest.raises(EngineError, match="does not accept the address of pictures"):
        engine.infer(images(1, 8, 12))


def test_two_lanes_share_only_the_weights(trt: FakeTensorRT, fake_cuda: FakeCuda, tmp_path: Path) -> None:
    info = write_plan(tmp_path)
    plan_file = tmp_path / info.plan.path
    first = TensorRtEngine(plan_file, info, H200)
    plan_file.unlink()  # the weights are not read again
    second = TensorRtEngine(plan_file, info, H200, share_weights_with=first)
    assert fake_cuda.calls.count("cudaStreamCreateWithFlags") == 2
    a, b = images(2, 8, 12), images(2, 8, 12) + 1
    for lane, batch in ((first, a), (second, b), (first, b), (second, a)):
        np.testing.assert_array_equal(lane.infer(batch).ids, batch[..., 0] % 4)
    first.close()
    np.testing.assert_array_equal(second.infer(a).ids, a[..., 0] % 4)
    second.close()
    assert not fake_cuda.memory
