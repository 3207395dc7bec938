"""The GPU benchmark's every row on the CPU: CUDA, the clock and the engines are stood in for, the rest is real."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from benchmarks.model.gpu import __main__ as command
from benchmarks.model.gpu import kernel, launch, network, timing, torch_ops
from model_export.alignseg.align_fa import AlignedAggregate
from model_export.onnx_export import exporter
from model_export.tensorrt_build import library
from model_export.tensorrt_build.library import NoTensorRTError
from service.engines import cuda
from service.engines.cuda import Device
from service.engines.onnxruntime.engine import OnnxRuntimeEngine

LITE = Path(__file__).parents[2] / "weights" / "alignseg-lite"


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[int, ...]]:
    """Returns the shapes that the runs gave."""
    given: list[tuple[int, ...]] = []

    def once(run: timing.Run) -> float:
        result = run()
        ids = getattr(result, "ids", result)
        given.append(tuple(ids.shape))
        return 2.0

    for module in (kernel, network):
        monkeypatch.setattr(module, "DEVICE", "cpu")
    monkeypatch.setattr(timing, "by_events", once)
    monkeypatch.setattr(timing, "by_clock", once)
    monkeypatch.setattr(timing, "graphed", lambda run: run)
    monkeypatch.setattr(timing, "bandwidth", lambda: 1e9)
    monkeypatch.setattr(timing, "free_memory", lambda **_: 2**30)
    monkeypatch.setattr(
        command,
        "torch",
        SimpleNamespace(
            __version__="2",
            version=torch.version,
            cuda=SimpleNamespace(is_available=lambda: True, get_device_name=lambda: "NVIDIA Test 1"),
            backends=SimpleNamespace(cudnn=SimpleNamespace()),
        ),
    )
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    return given


def table(folder: Path, name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "gpu-nvidia-test-1.json").read_text())
    assert result["gpu"] == "NVIDIA Test 1"
    rows: dict[str, Any] = result[name]
    return rows


def test_kernels(on_cpu: list[tuple[int, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain is the reference itself; the kernels are compared with that elsewhere."""
    monkeypatch.setattr(kernel, "AGGREGATES", ((8, (9, 13), (5, 7)),))
    monkeypatch.setattr(kernel, "ARGMAXES", ((3, (5, 7), (17, 25)),))
    monkeypatch.setattr(kernel, "FORMATS", ((torch.float32, torch.channels_last),))

    def aggregate(low: torch.Tensor, high: torch.Tensor, offsets: torch.Tensor, sampling: Any, _: Any) -> torch.Tensor:
        expected = AlignedAggregate(sampling)(low, high, offsets)
        torch.testing.assert_close(kernel._chain(low, high, offsets), expected, rtol=1e-4, atol=1e-4)
        return expected

    monkeypatch.setattr(launch, "aligned_aggregate", aggregate)
    monkeypatch.setattr(launch, "upsample_argmax", lambda logits, size: torch_ops.upsample_argmax(logits, *size))
    assert command.main(["--only", "kernel"]) == 0
    rows = table(tmp_path, "kernel")
    assert list(rows) == [
        "aggregate 8x9x13 5x7 float32 channels_last",
        "upsample_argmax 3x5x7 17x25 float32 channels_last",
    ]
    first, second = rows.values()
    assert first["layout"] == second["layout"] == "channels_last"
    assert first["tactic"].startswith("Tactic(") and (first["fused_ms"], first["speedup"]) == (2.0, 1.0)
    moved = 4 * (2 * 8 * 9 * 13 + 8 * 5 * 7 + 4 * 9 * 13)  # low, the result, high, offsets
    assert first["of_limit"] == pytest.approx(1e3 * moved / 1e9 / 2.0)
    assert second["of_limit"] == pytest.approx(1e3 * (4 * 3 * 5 * 7 + 17 * 25) / 1e9 / 2.0)
    assert set(on_cpu) == {(1, 8, 9, 13), (1, 17, 25)}


class Engine(OnnxRuntimeEngine):
    """Stands for the GPU's engines; max_batch as theirs."""

    max_batch = network.BATCH


def test_networks(
    on_cpu: list[tuple[int, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        library.load("tensorrt_rtx")
    except NoTensorRTError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(network, "MODELS", {"lite": 8})
    monkeypatch.setattr(network, "SIZES", ((33, 49),))
    monkeypatch.setattr(network, "BATCH", 2)
    monkeypatch.setattr(torch, "compile", lambda module, **how: compiled.append(how) or module)  # test_ops.py does it
    monkeypatch.setattr(exporter, "to_onnx", lambda network: onnx.load(LITE / "model.onnx"))
    monkeypatch.setattr(network, "OnnxCudaEngine", Engine)
    monkeypatch.setattr(cuda, "first_device", lambda: Device(0, "NVIDIA Test 1", 89))
    opened: list[tuple[str, str, tuple[Any, ...]]] = []
    compiled: list[dict[str, Any]] = []

    def engine(plan: Path, info: Any, device: Device) -> Engine:
        opened.append((info.precision, info.warp, info.profiles))
        assert plan.stat().st_size == info.plan.bytes
        return Engine(plan.parents[1] / "model.onnx")

    monkeypatch.setattr(network, "TensorRtEngine", engine)
    assert command.main(["--only", "network", "--match", "33X49"]) == 0
    rows = table(tmp_path, "network")
    failed = {name.removeprefix("lite-8 33x49 "): row["why_not"] for name, row in rows.items() if row["why_not"]}
    assert failed == dict.fromkeys(
        ("TensorRT fp32, plugin", "TensorRT fp16, plugin"), "the engine was not built, see above"
    ), capsys.readouterr().out  # TensorRT for RTX takes none
    assert len(rows) == 10
    assert all((r["ms"], r["pictures_a_second"]) == (2.0, 1000.0) for r in rows.values() if not r["why_not"])
    assert [(precision, warp) for precision, warp, _ in opened] == [("fp32", "gridsample"), ("fp16", "gridsample")]
    assert [(p.bucket, p.min_batch, p.max_batch) for p in opened[0][2]] == [((33, 49), 1, 1), ((33, 49), 2, 2)]
    assert on_cpu == [(1, 33, 49), (2, 33, 49)] * 8
    assert compiled == [{"fullgraph": True, "dynamic": False, "mode": "reduce-overhead"}] * 2
    assert command.main(["--only", "network", "--match", "eager", "fp32"]) == 0
    assert len(table(tmp_path, "network")) == 10  # what was measured before stays


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main([]) == 2
    assert "nothing was measured" in capsys.readouterr().err


def test_pictures_reach_pytorch_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "DEVICE", "cpu")
    pictures = network._pictures(2, (5, 7))
    np.testing.assert_array_equal(network._staged(pictures).numpy(), pictures)
