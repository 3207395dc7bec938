"""Which runtime is taken on which machine, and what is said of it."""

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engines import cuda, selection
from service.engines.onnxruntime.cuda_engine import OnnxCudaEngine, _require_on_gpu
from service.engines.onnxruntime.engine import OnnxRuntimeEngine
from service.engines.openvino import engine as openvino
from service.engines.reference_check import SelfTest
from service.engines.tensorrt import background_build, library
from service.errors import DeviceLost, EngineError, EngineOutOfMemory, EngineUnavailable, ManifestError
from service.model_folder import manifest as manifests
from service.settings import Settings
from service.types import Inference, UInt8Array
from tests.service.engines.tensorrt.fake_cuda_and_tensorrt import Error, FakeCuda, FakeTensorRT, Properties
from tests.service.engines.tensorrt.test_engine import BUCKETS, info_of
from tests.support import tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model.write(tmp_path / "tiny", buckets=BUCKETS)
    return tmp_path / "tiny"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    fake = FakeTensorRT(FakeCuda())
    monkeypatch.setattr(cuda, "load", lambda: fake.cuda)
    monkeypatch.setattr(library, "installed", lambda wanted=None: (fake, "tensorrt"))
    return fake


@pytest.fixture
def no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the CPU's engine is the same on every processor."""
    monkeypatch.setitem(sys.modules, "openvino", None)


def opened(folder: Path, caplog: pytest.LogCaptureFixture, **settings: Any) -> tuple[str, str]:
    """Name of the engine, and the line that says why."""
    with caplog.at_level(logging.INFO, "alignseg.engine"):
        engine = selection.open_engine(Settings(model=folder, **settings), manifests.load(folder))
    engine.close()
    return engine.name, next(r.message for r in caplog.records if "serves tiny" in r.message)


def test_a_fitting_plan_is_taken(folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture) -> None:
    onnx = manifests.load(folder).files["onnx"].sha256
    info_of(folder, onnx_sha256=onnx)
    name, line = opened(folder, caplog)
    assert name == "tensorrt-fp16-gpu0"
    assert line.endswith("(auto)")


@pytest.mark.usefixtures("no_openvino")
def test_without_one_it_falls_back_and_says_why(
    folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture
) -> None:
    info_of(folder, onnx_sha256="b" * 64)
    name, line = opened(folder, caplog)
    assert name == "onnxruntime-cpu"
    assert "not tensorrt: h200.plan was built from another ONNX" in line
    assert f"python model_export/build_engine.py {folder}" in line
    assert "not onnxruntime-cuda: this onnxruntime has no CUDAExecutionProvider" in line


@pytest.mark.usefixtures("no_openvino")
def test_a_plan_that_does_not_load_is_no_reason_not_to_serve(
    folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    info_of(folder, onnx_sha256=manifests.load(folder).files["onnx"].sha256)
    monkeypatch.setattr(gpu, "deserialize_cuda_engine", lambda plan: None)
    assert opened(folder, caplog)[0] == "onnxruntime-cpu"


@pytest.mark.usefixtures("no_openvino")
def test_a_plan_that_does_not_fit_into_memory_is_none_either(
    folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture
) -> None:
    info_of(folder, onnx_sha256=manifests.load(folder).files["onnx"].sha256)
    gpu.cuda.limit = 100
    name, line = opened(folder, caplog)
    assert name == "onnxruntime-cpu"
    assert "not tensorrt: allocating" in line
    gpu.cuda.limit = 2**30
    gpu.cuda.fails["cudaMalloc"] = Error.cudaErrorIllegalAddress
    with pytest.raises(DeviceLost):  # nothing would run on that device
        opened(folder, caplog)


@pytest.mark.usefixtures("no_openvino")
def test_no_gpu(folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "load", lambda: FakeCuda(devices=()))
    assert "(auto; this machine has no NVIDIA GPU; not openvino-int8: " in opened(folder, caplog)[1]
    monkeypatch.setattr(cuda, "driver_is_here", lambda: True)
    caplog.clear()
    assert "no GPU: there is no NVIDIA GPU (cudaErrorNoDevice)" in opened(folder, caplog)[1]
    for name in ("tensorrt", "onnxruntime-cuda"):  # asked for by name, it is that or nothing
        with pytest.raises(EngineUnavailable):
            opened(folder, caplog, engine=name)


def test_a_missing_engine_is_built_in_the_background(
    folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, str]] = []
    monkeypatch.setattr(background_build, "start", lambda *what: asked.append(what))
    opened(folder, caplog)
    assert asked == []
    opened(folder, caplog, build_engine="auto")
    assert asked == [(folder, f"{manifests.load(folder).files['onnx'].sha256} {BUCKETS}")]


@pytest.mark.parametrize(
    ("code", "level"), [("print('written x')", "INFO"), ("raise SystemExit('no TensorRT')", "ERROR")]
)
def test_a_background_build_runs_once_a_model_and_says_how_it_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, code: str, level: str
) -> None:
    with caplog.at_level(logging.INFO, "alignseg.build"):
        for onnx in ("a" * 64, "b" * 64):  # the second one was put in its place
            thread = background_build.start(tmp_path, onnx, [sys.executable, "-c", code])
            assert thread is not None
            thread.join(20)
            assert caplog.records[-1].levelname == level
            assert caplog.records[-1].message.endswith(("written x", "no TensorRT"))
        assert background_build.start(tmp_path, "a" * 64, [sys.executable, "-c", code]) is None
    assert "tried before" in caplog.records[-1].message


class Session:
    """What of a session says where nodes are computed."""

    def __init__(self, providers: list[str], on_cpu: tuple[str, ...]) -> None:
        self.providers, self.on_cpu, self.ep_name = providers, on_cpu, "CPUExecutionProvider"

    def get_providers(self) -> list[str]:
        return self.providers

    def get_provider_graph_assignment_info(self) -> list["Session"]:
        return [self]

    def get_nodes(self) -> list[Any]:
        return [type("Node", (), {"op_type": op_type}) for op_type in self.on_cpu]


def test_no_feature_map_is_computed_on_the_cpu() -> None:
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    _require_on_gpu(Session(both, ("Shape", "Concat", "Range")), "1.32")
    with pytest.raises(EngineUnavailable, match="computes Conv, GridSample on the CPU"):
        _require_on_gpu(Session(both, ("GridSample", "Shape", "Conv")), "1.32")
    with pytest.raises(EngineUnavailable, match="could not load its CUDA provider"):
        _require_on_gpu(Session(["CPUExecutionProvider"], ()), "1.32")


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("CUDA failure 700: an illegal memory access was encountered", DeviceLost),
        ("CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED", EngineError),
        ("CUDA failure 701: too many resources requested for launch", EngineError),
        ("Failed to allocate memory for requested buffer of size 1", EngineOutOfMemory),
        ("CUDA failure 2: out of memory", EngineOutOfMemory),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", EngineOutOfMemory),
    ],
)
def test_messages_of_onnx_runtime(message: str, kind: type[EngineError]) -> None:
    assert OnnxCudaEngine._kind(OnnxCudaEngine.__new__(OnnxCudaEngine), message) is kind


def test_each_gpu_gets_an_engine(folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture) -> None:
    info_of(folder, onnx_sha256=manifests.load(folder).files["onnx"].sha256)
    gpu.cuda.devices *= 2
    with caplog.at_level(logging.INFO, "alignseg.engine"):
        engines = selection.open_engines(Settings(model=folder), manifests.load(folder))
    assert [engine.name for engine in engines] == ["tensorrt-fp16-gpu0"] * 2 + ["tensorrt-fp16-gpu1"] * 2
    assert "tensorrt-fp16-gpu0, tensorrt-fp16-gpu1 serves tiny" in caplog.text
    for engine in engines:
        engine.close()
    assert opened(folder, caplog)[0] == "tensorrt-fp16-gpu0"  # one is enough for who has one picture at a time


@pytest.mark.usefixtures("no_openvino")
def test_all_or_none(folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture) -> None:
    info_of(folder, onnx_sha256=manifests.load(folder).files["onnx"].sha256)
    gpu.cuda.devices += (Properties("NVIDIA T4", 7, 5),)
    engines = selection.open_engines(Settings(model=folder), manifests.load(folder))
    assert [engine.name for engine in engines] == ["onnxruntime-cpu"]
    assert not gpu.cuda.memory  # what the first one held is given back


def test_without_memory_for_a_second_lane_it_goes_on_with_one(
    folder: Path, gpu: FakeTensorRT, caplog: pytest.LogCaptureFixture
) -> None:
    info_of(folder, onnx_sha256=manifests.load(folder).files["onnx"].sha256)
    (alone,) = selection.open_engines(Settings(model=folder), manifests.load(folder), alone=True)
    gpu.cuda.limit = sum(len(block) for block in gpu.cuda.memory.values())  # what one lane takes
    alone.close()
    (engine,) = selection.open_engines(Settings(model=folder), manifests.load(folder))
    assert engine.name == "tensorrt-fp16-gpu0"
    assert "no memory for a second lane" in caplog.text
    engine.close()
    assert not gpu.cuda.memory


@pytest.mark.parametrize("bf16", [True, False])
def test_the_quickest_on_the_processor(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, bf16: bool
) -> None:
    if bf16 and not openvino.computes_bf16():
        pytest.skip("this processor does not compute in bfloat16")
    monkeypatch.setattr(cuda, "load", lambda: FakeCuda(devices=()))
    if not bf16:
        monkeypatch.setattr(openvino, "computes_bf16", lambda core: False)
    name, line = opened(folder, caplog)
    assert name == ("openvino-bf16" if bf16 else "openvino-cpu")
    assert "not openvino-int8: the model has no int8 ranges" in line
    assert ("not openvino-bf16: this processor does not compute" in line) != bf16


def test_one_that_disagrees_with_the_reference_does_not_serve(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(openvino.OpenVinoEngine):
        def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
            return Inference(super().infer(batch).ids ^ np.uint8(1))

    monkeypatch.setattr(cuda, "load", lambda: FakeCuda(devices=()))
    monkeypatch.setattr(selection, "OpenVinoEngine", Broken)
    name, line = opened(folder, caplog)
    assert name == "onnxruntime-cpu"
    assert "not openvino-cpu: on the self-test picture 0.00% of its pixels agree" in line
    assert opened(folder, caplog, engine="openvino-cpu")[0] == "openvino-cpu"  # asked for by name, it is that


def with_self_test(folder: Path, flip: int = 0) -> None:
    """The folder with an answer to its self-test, as export writes it; flip: bits of it that are wrong."""
    manifest = manifests.load(folder)
    test = SelfTest.ask(OnnxRuntimeEngine(folder / "model.onnx"), BUCKETS[0])
    test._replace(ids=test.ids ^ np.uint8(flip)).save(folder / "self_test.npz")
    files = {**manifest.files, "self_test": manifests.FileEntry.of(folder / "self_test.npz", folder)}
    (folder / "model.json").write_text(manifest.model_copy(update={"files": files}).model_dump_json())


def test_with_the_references_answer_at_hand_it_is_not_loaded(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_self_test(folder)
    monkeypatch.setattr(cuda, "load", lambda: FakeCuda(devices=()))
    monkeypatch.setattr(selection, "OnnxRuntimeEngine", None)  # a call would be an error
    assert opened(folder, caplog)[0] in {"openvino-bf16", "openvino-cpu"}


def test_who_disagrees_with_that_answer_does_not_serve(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_self_test(folder, flip=1)
    monkeypatch.setattr(cuda, "load", lambda: FakeCuda(devices=()))
    name, line = opened(folder, caplog)
    assert name == "onnxruntime-cpu"
    assert "not openvino-cpu: on the self-test picture 0.00% of its pixels agree" in line
    (folder / "self_test.npz").write_bytes(b"")
    with pytest.raises(ManifestError, match="is not the file that was exported"):
        opened(folder, caplog)


def test_int8_without_ranges_is_refused(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(EngineUnavailable, match="alignseg export --calibration"):
        opened(folder, caplog, engine="openvino-int8")
