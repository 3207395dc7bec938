"""Which engine serves on a processor without bfloat16, where int8 and float32 are measured once."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.engines import cpu, cuda, reference_check, selection
from service.model_folder import manifest as manifests
from service.settings import REPOSITORY, Settings
from tests.service.engines.tensorrt.fake_cuda_and_tensorrt import FakeCuda

pytest.importorskip("openvino", reason="openvino is not installed: pip install -e '.[cpu]'")
import openvino

from service.engines.openvino import engine as openvino_engine
from service.engines.openvino import processor
from service.engines.openvino.processor import Features
from service.engines.openvino.speed_record import SpeedRecord

SHIPPED = REPOSITORY / "weights" / "alignseg-lite"
pytestmark = pytest.mark.skipif(not openvino_engine.features().avx2, reason="this processor has no AVX2")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture
def folder(small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped model at one small size, on a processor with VNNI and without bfloat16; nothing was measured yet."""
    cache = small.parent / "cache"  # the tests share compiled models
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(cuda, "load", lambda: FakeCuda(devices=()))
    monkeypatch.setattr(processor, "features", lambda core: Features(bfloat16=False, vnni=True, avx2=True))
    for path in cache.rglob("*.speed.json"):
        path.unlink()
    return small


def write_small(folder: Path) -> Path:
    shutil.copytree(SHIPPED, folder)
    manifest = manifests.load(folder)
    files = {role: file for role, file in manifest.files.items() if role != reference_check.ROLE}
    size = manifest.input.model_copy(update={"buckets": ((96, 128),)})
    changed = manifest.model_copy(update={"files": files, "input": size})
    (folder / "model.json").write_text(changed.model_dump_json())
    return folder


def opened(folder: Path, caplog: pytest.LogCaptureFixture) -> tuple[str, str]:
    """Name of the engine, and the log line that says why it was chosen."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "alignseg.engine"):
        engine = selection.open_engine(Settings(model=folder), manifests.load(folder))
    engine.close()
    return engine.name, next(record.message for record in caplog.records if " serves " in record.message)


def record(folder: Path) -> Path:
    (path,) = (folder.parent / "cache" / "alignseg-serve").glob("*.speed.json")
    return path


def test_the_fastest_is_measured_once_and_kept(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = opened(folder, caplog)
    times = json.loads(record(folder).read_bytes())
    assert set(times) == {"openvino-int8", "openvino-cpu"}
    assert times[name] == min(times.values())
    monkeypatch.setattr(cpu, "ROUNDS", None)  # to measure again would be an error
    for fastest in times:
        record(folder).write_text(json.dumps(dict.fromkeys(times, 9.0) | {fastest: 3.0}))
        name, line = opened(folder, caplog)
        assert name == fastest
        assert ("openvino-int8 (9.0 ms an image, openvino-cpu 3.0 ms)" in line) == (fastest == "openvino-cpu")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"openvino-int8": -1}', '{"openvino-int8": "x"}', "[[1, 2]]"])
def test_a_damaged_record_is_not_used(tmp_path: Path, content: str) -> None:
    kept = SpeedRecord(tmp_path, "model")
    kept.store({"openvino-int8": 1.234})
    assert SpeedRecord(tmp_path, "model").load() == {"openvino-int8": 1.23}
    (path,) = tmp_path.iterdir()
    path.write_text(content)
    assert kept.load() is None


def test_a_record_holds_for_its_inputs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SpeedRecord(tmp_path, "model", Features(bfloat16=False, vnni=True, avx2=True)).store({"openvino-int8": 1.0})
    assert SpeedRecord(tmp_path, "model", Features(bfloat16=False, vnni=False, avx2=True)).load() is None
    assert SpeedRecord(tmp_path, "another", Features(bfloat16=False, vnni=True, avx2=True)).load() is None
    monkeypatch.setattr(openvino, "__version__", "2030.1")
    assert SpeedRecord(tmp_path, "model", Features(bfloat16=False, vnni=True, avx2=True)).load() is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for folder in (None, tmp_path / "file" / "below"):
        SpeedRecord(folder, "model").store({"openvino-int8": 1.0})
        assert SpeedRecord(folder, "model").load() is None


def test_an_engine_that_fails_its_check_is_not_measured(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(reference_check.AGREEING, "int8", 1.01)
    name, line = opened(folder, caplog)
    assert name == "openvino-cpu"
    assert re.search(r"openvino-int8 \(\d\d\.\d\d% of the pixels .* expected at least 101\.0%\)", line)
    assert not list((folder.parent / "cache").rglob("*.speed.json"))  # so that each start checks it again


def test_without_avx2_float32_serves(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "features", lambda core: Features(False, vnni=False, avx2=False))
    name, line = opened(folder, caplog)
    assert name == "openvino-cpu"
    assert "openvino-int8 (this processor does not support AVX2, which int8 needs)" in line


SERVE = """
import json, sys
from pathlib import Path
from service.engines import cpu, reference_check, selection
from service.engines.onnxruntime.engine import OnnxRuntimeEngine
from service.engines.openvino import engine as openvino_engine
from service.model_folder import manifest as manifests
from service.settings import Settings
folder = Path(sys.argv[1])
settings, manifest = Settings(model=folder), manifests.load(folder)
engine = selection.open_engine(settings, manifest)
scene = reference_check.street_scene(manifest.input.buckets[0])
expected = OnnxRuntimeEngine(folder / "model.onnx").infer(scene).ids
int8 = cpu.OPEN["openvino-int8"](settings, manifest, folder / "model.onnx")
agreeing = float((int8.infer(scene).ids == expected).mean())
print(json.dumps([engine.name, agreeing, openvino_engine.features()]))
"""


@pytest.mark.parametrize("limit", ["AVX2", "AVX512_CORE_VNNI"])
def test_older_processors_serve_int8_too(tmp_path: Path, limit: str) -> None:
    """A process whose oneDNN uses no newer instructions: the real measurement, and int8 without sums that saturate."""
    folder = write_small(tmp_path / "small")
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": limit, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", SERVE, str(folder)]
    result = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, check=True)  # noqa: S603
    name, agreeing, (bfloat16, vnni, avx2) = json.loads(result.stdout)
    assert (bfloat16, avx2) == (False, True)
    assert vnni == (limit == "AVX512_CORE_VNNI" and "avx512_vnni" in processor._flags())
    times = json.loads(record(folder).read_bytes())
    assert times[name] == min(times.values())
    assert agreeing >= (0.98 if vnni else 0.97)
