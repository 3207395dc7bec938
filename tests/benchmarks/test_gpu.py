"""The GPU benchmark on a CPU: its rows compute what they claim, its command works without a GPU. Nothing is timed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import kernel, network, timing
from model_export.alignseg.align_fa import AlignedAggregate
from model_export.tensorrt_build import library
from model_export.tensorrt_build.library import NoTensorRTError
from service.engines import cuda
from service.engines.cuda import Device
from service.engines.tensorrt import engine as tensorrt_engine

SIZE = (33, 49)


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "DEVICE", "cpu")


@pytest.fixture
def model(tmp_path: Path) -> network._Model:
    return network._Model("lite", 8, tmp_path / "model.onnx")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 2
    assert "nothing was measured" in capsys.readouterr().err


def test_the_chain_beside_the_kernel_computes_the_same_function(cpu: None) -> None:
    for channels, raster, small in ((8, (9, 13), (5, 7)), (64, (93, 121), (12, 16))):
        low, high = (kernel._random(channels, size, torch.float32, torch.channels_last) for size in (raster, small))
        offsets = 2 * kernel._random(4, raster, torch.float32, torch.contiguous_format)
        expected = AlignedAggregate("standard")(low, high, offsets)
        torch.testing.assert_close(kernel._chain(low, high, offsets), expected, rtol=1e-4, atol=1e-4)


def test_the_share_of_the_bandwidth_counts_each_byte_once(cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "graphed", lambda run: run)
    monkeypatch.setattr(timing, "by_events", lambda run: 2.0)
    shape = (8, (9, 13), (5, 7))
    aggregate = kernel._aggregate(shape, torch.float16, torch.channels_last, bandwidth=1e9)
    elements = 2 * 8 * 9 * 13 + 8 * 5 * 7 + 4 * 9 * 13  # low, the result, high, offsets: model_export/kernels/README.md
    assert aggregate.of_limit == pytest.approx(2 * elements / 1e9 / 2e-3)
    argmax = kernel._argmax((3, (5, 7), (17, 25)), torch.float32, torch.channels_last, bandwidth=1e9)
    assert argmax.of_limit == pytest.approx((4 * 3 * 5 * 7 + 17 * 25) / 1e9 / 2e-3)
    assert (aggregate.speedup, argmax.speedup) == (1.0, 1.0)


def test_every_row_has_a_name_of_its_own() -> None:
    kernels = [name for name, _ in kernel.rows()]
    networks = [name for name, _ in network.rows()]
    assert len(set(kernels)) == len(kernels) == len(kernel.FORMATS) * (len(kernel.AGGREGATES) + len(kernel.ARGMAXES))
    assert len(set(networks)) == len(networks) == len(network.MODELS) * len(network.SIZES) * 11


@pytest.mark.parametrize("fused", [False, True])
def test_a_pytorch_row_segments_its_images(cpu: None, model: network._Model, fused: bool) -> None:
    images = network._images(2, SIZE)
    with torch.no_grad():
        logits = network.ServingModule(model.network)(torch.from_numpy(images))[1]
    with network._torch(model, torch.float32, fused=fused) as infer:
        class_map = np.asarray(infer(images))
    assert class_map.shape == (2, *SIZE)
    logits = torch.nn.functional.interpolate(logits, SIZE, mode="bilinear", align_corners=True)
    expected = logits.argmax(dim=1).numpy()
    assert (class_map == expected).mean() > 0.999  # where two classes are equal, the order of sums decides


def test_a_tensorrt_row_opens_the_engine_that_it_built(model: network._Model, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        library.load("tensorrt_rtx")
    except NoTensorRTError as error:
        pytest.skip(str(error))
    opened: list[tuple[Path, Any]] = []
    monkeypatch.setattr(network, "BATCH", 2)
    monkeypatch.setattr(tensorrt_engine, "TensorRtEngine", lambda plan, info, device: opened.append((plan, info)))
    monkeypatch.setattr(cuda, "first_device", lambda: Device(0, "NVIDIA Test 1", 89))
    for precision in ("fp32", "fp16"):
        network._tensorrt(model, SIZE, "gridsample", precision)
        plan, info = opened[-1]
        assert (info.precision, info.warp) == (precision, "gridsample")
        assert plan.stat().st_size == info.plan.bytes
        assert [(p.bucket, p.min_batch, p.max_batch) for p in info.profiles] == [(SIZE, 1, 1), (SIZE, 2, 2)]


def test_what_cannot_be_measured_is_a_row_with_its_error(cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "free_memory", lambda **_: 2**30)

    def unavailable() -> Any:
        raise RuntimeError("no such runtime\nand more")

    row = network._row("lite-8", SIZE, "TensorRT fp16, plugin", unavailable)
    assert (row.ms, row.images_per_s, row.error) == (None, None, "no such runtime")


def test_rows_of_earlier_runs_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def row(name: str) -> tuple[str, Any]:
        return name, lambda: network.NetworkRow(name, "33x49", "eager fp32", 2.0, 1000.0, 1.0)

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Test 1")
    monkeypatch.setattr(command, "_rows", lambda table, once: iter([row("Alpha 33x49"), row("Beta 33x49")]))
    command.measure("network", ["alpha"], tmp_path)
    command.measure("network", ["beta", "33x49"], tmp_path)
    result = json.loads((tmp_path / "gpu-nvidia-test-1.json").read_text())
    assert list(result["network"]) == ["Alpha 33x49", "Beta 33x49"]
    assert result["machine"]["packages"]["torch"] == torch.__version__
