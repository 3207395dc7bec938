"""The cache key covers everything that a compiled model depends on."""

import errno
import io
import os
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


class Compiled:
    def export_model(self) -> bytes:
        return bytes(range(256)) * 4


class Core:
    """Loads whatever it is given, as OpenVINO loads a file with a changed byte."""

    def import_model(self, file: io.BytesIO, *_: object) -> bytes:
        return file.read()


@pytest.fixture
def cache(tmp_path: Path, model: Path) -> CompileCache:
    """With one compiled model in it."""
    cache = CompileCache(openvino.Core(), tmp_path / "cache", model, {})
    cache._core = Core()
    cache.store(SHAPE, Compiled())
    return cache


def stored(cache: CompileCache) -> Path:
    path = cache._path(SHAPE)
    assert path is not None
    return path


def test_an_intact_file_is_loaded(cache: CompileCache) -> None:
    assert cache.load(SHAPE) == Compiled().export_model()


def test_a_flipped_bit_anywhere_is_noticed_and_the_file_deleted(cache: CompileCache) -> None:
    path = stored(cache)
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
        assert cache.load(SHAPE) is None, at
        assert not path.exists()
    cache.store(SHAPE, Compiled())
    assert cache.load(SHAPE) == Compiled().export_model()


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 500, 1055])
def test_a_truncated_file_is_noticed(cache: CompileCache, length: int) -> None:
    path = stored(cache)
    path.write_bytes(path.read_bytes()[:length])
    assert cache.load(SHAPE) is None


def test_a_longer_file_and_one_of_an_earlier_version_are_noticed(cache: CompileCache) -> None:
    path = stored(cache)
    for content in (path.read_bytes() + b"\0", Compiled().export_model()):
        path.write_bytes(content)
        assert cache.load(SHAPE) is None


def test_folders_that_cannot_be_read_or_written_are_no_error(cache: CompileCache, tmp_path: Path) -> None:
    path = stored(cache)
    path.unlink()
    path.mkdir()  # neither read nor replaced, whoever runs this
    assert cache.load(SHAPE) is None
    cache.store(SHAPE, Compiled())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    cache._folder = tmp_path / "model.onnx"  # a file
    assert cache.load(SHAPE) is None
    cache.store(SHAPE, Compiled())


def test_a_read_only_cache_is_used(cache: CompileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    assert cache.load(SHAPE) == Compiled().export_model()
    path = stored(cache)
    path.write_bytes(b"damaged")
    assert cache.load(SHAPE) is None


def test_a_full_disk_leaves_no_file(cache: CompileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(cache)
    path.unlink()

    def write_half(target: Path, content: bytes) -> None:
        with target.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", write_half)
        cache.store(SHAPE, Compiled())
    assert list(path.parent.iterdir()) == []


def test_files_of_a_process_that_was_killed_while_it_wrote_are_deleted(cache: CompileCache) -> None:
    folder = stored(cache).parent
    old, new, other = (folder / name for name in (".a.openvino.0123abcd.tmp", ".b.openvino.4567cdef.tmp", "notes.tmp"))
    for path in (old, new, other):
        path.touch()
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    cache.store(SHAPE, Compiled())
    assert sorted(path.name for path in folder.iterdir()) == sorted((new.name, other.name, stored(cache).name))


def test_only_the_most_recently_used_files_are_kept(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_cache, "_FILES_KEPT", 2)
    cache = CompileCache(openvino.Core(), tmp_path / "cache", model, {})
    for size in (8, 16, 24):
        cache.store((1, size, size, 3), Compiled())
    assert len(list((tmp_path / "cache").iterdir())) == 2
