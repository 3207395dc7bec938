"""Which runtime is chosen on which machine, and the log line that says why."""

import logging
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engines import cpu, cuda, selection
from service.engines.onnxruntime.engine import OnnxRuntimeEngine
from service.engines.openvino import engine as openvino_engine
from service.engines.openvino import processor
from service.engines.openvino.engine import OpenVinoEngine
from service.engines.reference_check import ReferenceCheck
from service.engines.tensorrt import background_build, library
from service.errors import DeviceLost, EngineUnavailable, ManifestError
from service.model_folder import manifest as manifests
from service.settings import Settings
from service.types import Inference, UInt8Array
from tests.service.engines.tensorrt.fake_cuda_and_tensorrt import Error, FakeCuda, FakeTensorRT, Properties
from tests.service.engines.tensorrt.plans import BUCKETS, write_plan
from tests.support import tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model.write(tmp_path / "tiny", buckets=BUCKETS)
    return tmp_path / "tiny"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    fake = FakeTensorRT(FakeCuda())
    fake.classify = lambda pixels: pixels.argmax(axis=1)  # as tests/support/tiny_model.py
    monkeypatch.setattr(cuda, "load", lambda: fake.cuda)
    monkeypatch.setattr(library, "installed", lambda runtime=None: (fake, "tensorrt"))
    return fake


@pytest.fixture
def no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO is not installed, so that the CPU's engine is the same on every processor."""
    monkeypatch.setitem(sys.modules, "openvino", None)


def opened(folder: Path, caplog: pytest.LogCaptureFixture, **settings: Any) -> tuple[str, str]:
    """Name of the engine, and the log line that says why it was chosen."""
    with caplog.at_level(logging.INFO, "alignseg.engine"):
        engine = selection.open_engine(Settings(model=folder, **settings), manifests.load(folder))
    engine.close()
    return engine.name, next(r.message for r in caplog.records if "serves tiny" in r.message)


def test_a_plan_for_this_machine_is_chosen(folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture) -> None:
    onnx = manifests.load(folder).files["onnx"].sha256
    write_plan(folder, onnx_sha256=onnx)
    name, line = opened(folder, caplog)
    assert name == "tensorrt-fp16-gpu0"
    assert line == f"tensorrt-fp16-gpu0 serves tiny 1 from {folder}, chosen by ALIGNSEG_ENGINE=auto."


@pytest.mark.usefixtures("no_openvino")
def test_a_plan_that_disagrees_with_the_reference_does_not_serve(
    folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture
) -> None:
    write_plan(folder, onnx_sha256=manifests.load(folder).files["onnx"].sha256)
    gpu.classify = lambda pixels: np.where(np.arange(len(pixels)) % 100 == 0, 3, pixels.argmax(axis=1))
    name, line = opened(folder, caplog)
    assert name == "onnxruntime-cpu"
    assert re.search(r"tensorrt \(98\.\d+% of the pixels of the check image agree .* expected at least 99\.7%\)", line)
    assert not gpu.cuda.memory  # the rejected engine is closed
    assert opened(folder, caplog, engine="tensorrt")[0] == "tensorrt-fp16-gpu0"  # chosen by name, it is not checked
    write_plan(folder, onnx_sha256=manifests.load(folder).files["onnx"].sha256, precision="bf16")
    assert opened(folder, caplog)[0] == "tensorrt-bf16-gpu0"  # whose tolerance is larger


@pytest.mark.usefixtures("no_openvino")
def test_without_a_plan_another_engine_is_chosen_and_the_reason_logged(
    folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture
) -> None:
    write_plan(folder, onnx_sha256="b" * 64)
    name, line = opened(folder, caplog)
    assert name == "onnxruntime-cpu"
    assert "Skipped: tensorrt (h200.plan was built from another ONNX" in line
    assert f"python model_export/build_engine.py {folder}" in line
    assert re.search(r"; onnxruntime-cuda \(onnxruntime \S+ has no CUDAExecutionProvider", line)


@pytest.mark.usefixtures("no_openvino")
def test_another_engine_serves_when_the_plan_does_not_load(
    folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plan(folder, onnx_sha256=manifests.load(folder).files["onnx"].sha256)
    monkeypatch.setattr(gpu, "deserialize_cuda_engine", lambda plan: None)
    assert opened(folder, caplog)[0] == "onnxruntime-cpu"


@pytest.mark.usefixtures("no_openvino")
def test_another_engine_serves_when_the_plan_does_not_fit_into_memory(
    folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture
) -> None:
    write_plan(folder, onnx_sha256=manifests.load(folder).files["onnx"].sha256)
    gpu.cuda.limit = 100
    name, line = opened(folder, caplog)
    assert name == "onnxruntime-cpu"
    assert "tensorrt (allocating" in line
    gpu.cuda.limit = 2**30
    gpu.cuda.fails["cudaMalloc"] = Error.cudaErrorIllegalAddress
    with pytest.raises(DeviceLost):  # no engine would run on that device
        opened(folder, caplog)


@pytest.mark.usefixtures("no_openvino")
def test_without_a_gpu_the_cpu_serves(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "load", lambda: FakeCuda(devices=()))
    assert (
        "Skipped: tensorrt and onnxruntime-cuda (this machine has no NVIDIA GPU); openvino-int8 ("
        in opened(folder, caplog)[1]
    )
    monkeypatch.setattr(cuda, "has_driver", lambda: True)
    caplog.clear()
    assert "tensorrt and onnxruntime-cuda (CUDA finds no NVIDIA GPU (cudaErrorNoDevice));" in opened(folder, caplog)[1]
    for name in ("tensorrt", "onnxruntime-cuda"):  # chosen by name, it serves or the start fails
        with pytest.raises(EngineUnavailable):
            opened(folder, caplog, engine=name)


def test_a_missing_engine_is_built_in_the_background_if_the_settings_say_so(
    folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds: list[tuple[Path, str]] = []
    monkeypatch.setattr(background_build, "start", lambda *arguments: builds.append(arguments))
    opened(folder, caplog)
    assert builds == []
    opened(folder, caplog, build_engine="auto")
    assert builds == [(folder, f"{manifests.load(folder).files['onnx'].sha256} {BUCKETS}")]


def test_each_gpu_gets_two_lanes(folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture) -> None:
    write_plan(folder, onnx_sha256=manifests.load(folder).files["onnx"].sha256)
    gpu.cuda.devices *= 2
    with caplog.at_level(logging.INFO, "alignseg.engine"):
        engines = selection.open_engines(Settings(model=folder), manifests.load(folder))
    assert [engine.name for engine in engines] == ["tensorrt-fp16-gpu0"] * 2 + ["tensorrt-fp16-gpu1"] * 2
    assert "tensorrt-fp16-gpu0, tensorrt-fp16-gpu1 serves tiny" in caplog.text
    for engine in engines:
        engine.close()
    assert opened(folder, caplog)[0] == "tensorrt-fp16-gpu0"  # open_engine opens one


@pytest.mark.usefixtures("no_openvino")
def test_an_engine_that_not_all_gpus_run_serves_on_none(
    folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture
) -> None:
    write_plan(folder, onnx_sha256=manifests.load(folder).files["onnx"].sha256)
    gpu.cuda.devices += (Properties("NVIDIA T4", 7, 5),)
    engines = selection.open_engines(Settings(model=folder), manifests.load(folder))
    assert [engine.name for engine in engines] == ["onnxruntime-cpu"]
    assert not gpu.cuda.memory  # what the first GPU held is freed


def test_without_memory_for_a_second_lane_one_lane_serves(
    folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture
) -> None:
    write_plan(folder, onnx_sha256=manifests.load(folder).files["onnx"].sha256)
    (lane,) = selection.open_engines(Settings(model=folder), manifests.load(folder), only_one=True)
    gpu.cuda.limit = sum(len(block) for block in gpu.cuda.memory.values())  # what one lane takes
    lane.close()
    (engine,) = selection.open_engines(Settings(model=folder), manifests.load(folder))
    assert engine.name == "tensorrt-fp16-gpu0"
    assert "too small for a second lane" in caplog.text
    engine.close()
    assert not gpu.cuda.memory


@pytest.mark.parametrize("bf16", [True, False])
def test_the_fastest_precision_of_the_processor_is_chosen(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, bf16: bool
) -> None:
    if bf16 and not openvino_engine.features().bfloat16:
        pytest.skip("this processor does not compute in bfloat16")
    monkeypatch.setattr(cuda, "load", lambda: FakeCuda(devices=()))
    if not bf16:
        monkeypatch.setattr(processor, "features", lambda core: processor.Features(False, vnni=True, avx2=True))
    name, line = opened(folder, caplog)
    assert name == ("openvino-bf16" if bf16 else "openvino-cpu")  # the model has no int8 ranges
    assert "openvino-int8 (the model has no int8 ranges;" in line
    assert ("openvino-bf16 (this processor does not support bfloat16, which needs AVX512_BF16 or AMX)" in line) != bf16


def test_an_engine_that_disagrees_with_the_reference_does_not_serve(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(OpenVinoEngine):
        def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
            return Inference(super().infer(batch).ids ^ np.uint8(1))

    monkeypatch.setattr(cuda, "load", lambda: FakeCuda(devices=()))
    monkeypatch.setattr(cpu, "OpenVinoEngine", Broken)
    name, line = opened(folder, caplog)
    assert name == "onnxruntime-cpu"
    assert "openvino-cpu (0.00% of the pixels of the check image agree with the reference" in line
    assert opened(folder, caplog, engine="openvino-cpu")[0] == "openvino-cpu"  # chosen by name, it is not checked


def write_reference_check(folder: Path, wrong_bits: int = 0) -> None:
    """Put a reference check into the folder, as the export does. wrong_bits: flipped in its class ids."""
    manifest = manifests.load(folder)
    check = ReferenceCheck.from_reference(OnnxRuntimeEngine(folder / "model.onnx"), BUCKETS[0])
    check._replace(ids=check.ids ^ np.uint8(wrong_bits)).save(folder / "self_test.npz")
    files = {**manifest.files, "self_test": manifests.FileEntry.of(folder / "self_test.npz", folder)}
    (folder / "model.json").write_text(manifest.model_copy(update={"files": files}).model_dump_json())


def test_the_reference_is_not_loaded_when_the_folder_holds_its_class_map(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_reference_check(folder)
    monkeypatch.setattr(cuda, "load", lambda: FakeCuda(devices=()))
    monkeypatch.setattr(cpu, "OnnxRuntimeEngine", None)  # a call would be an error
    assert opened(folder, caplog)[0] in {"openvino-bf16", "openvino-cpu"}


def test_an_engine_that_disagrees_with_the_folders_class_map_does_not_serve(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_reference_check(folder, wrong_bits=1)
    monkeypatch.setattr(cuda, "load", lambda: FakeCuda(devices=()))
    name, line = opened(folder, caplog)
    assert name == "onnxruntime-cpu"
    assert "openvino-cpu (0.00% of the pixels of the check image agree with the reference" in line
    (folder / "self_test.npz").write_bytes(b"")
    with pytest.raises(ManifestError, match="is not the file that was exported"):
        opened(folder, caplog)


def test_int8_without_ranges_is_refused(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(EngineUnavailable, match="alignseg export --calibration"):
        opened(folder, caplog, engine="openvino-int8")
