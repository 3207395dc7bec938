"""The cache key covers everything that a compiled model depends on."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("openvino", reason="openvino is not installed: pip install -e '.[cpu]'")
import openvino

from service.engines.openvino import compile_cache
from service.engines.openvino.compile_cache import CompileCache, source_digest

PACKAGE = Path(compile_cache.__file__).parent
SHAPE = (1, 8, 8, 3)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of service/engines/openvino."""
    return shutil.copytree(PACKAGE, tmp_path / "openvino", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"a model")
    return path


def key(folder: Path, model: Path, properties: dict[str, object] | None = None, *other_inputs: object) -> str:
    path = CompileCache(openvino.Core(), folder, model, properties or {}, *other_inputs)._path(SHAPE)
    assert path is not None
    return path.name


def test_changing_any_file_of_the_package_changes_the_key(
    tmp_path: Path, package: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_cache, "_PACKAGE", package)
    names = {path.name for path in package.glob("*.py")}
    assert {"custom_ops.py", "rewrite_argmax.py", "rewrite_input_layout.py", "rewrite_offset_conv.py"} < names
    keys = {key(tmp_path, model)}
    for path in sorted(package.glob("*.py")):
        path.write_text(path.read_text() + "# changed\n")
        keys.add(key(tmp_path, model))
    assert len(keys) == 1 + len(names)


def test_files_of_subpackages_count(package: Path) -> None:
    before = source_digest(package)
    (package / "rewrites").mkdir()
    (package / "rewrites" / "another.py").write_text("")
    assert source_digest(package) != before


def test_moving_code_from_one_file_to_the_next_counts(tmp_path: Path) -> None:
    digests = set()
    for first, second in (("a", "bc"), ("ab", "c")):
        (tmp_path / "first.py").write_text(first)
        (tmp_path / "second.py").write_text(second)
        digests.add(source_digest(tmp_path))
    assert len(digests) == 2


def test_model_properties_and_other_inputs_change_the_key(tmp_path: Path, model: Path) -> None:
    keys = {key(tmp_path, model), key(tmp_path, model, {"INFERENCE_NUM_THREADS": 2}), key(tmp_path, model, {}, "int8")}
    assert key(tmp_path, model) in keys
    model.write_bytes(b"another model")
    keys.add(key(tmp_path, model))
    assert len(keys) == 4


def test_only_the_most_recently_used_files_are_kept(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Compiled:
        def export_model(self) -> bytes:
            return b"compiled"

    monkeypatch.setattr(compile_cache, "_FILES_KEPT", 2)
    cache = CompileCache(openvino.Core(), tmp_path / "cache", model, {})
    for size in (8, 16, 24):
        cache.store((1, size, size, 3), Compiled())
    assert len(list((tmp_path / "cache").iterdir())) == 2
