"""Atomic replacement: the old file or the new one, and no temporary file left behind."""

import os
from pathlib import Path

import pytest

from service.files import atomic_replace


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_text("old")
    return path


@pytest.mark.parametrize("durable", [True, False])
def test_a_complete_write_replaces_the_file(path: Path, durable: bool) -> None:
    with atomic_replace(path, durable=durable) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"  # readers see the old file until the new one is complete
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_keeps_the_old_file_and_leaves_no_temporary_file(
    path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), atomic_replace(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_first_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_replace(tmp_path / "new.json") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_file_do_not_disturb_each_other(path: Path) -> None:
    with atomic_replace(path) as first, atomic_replace(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # it ended last
    assert list(path.parent.iterdir()) == [path]


def test_the_new_file_has_the_umasks_permissions_whatever_the_writer_set(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with atomic_replace(tmp_path / "model.safetensors") as temporary:
            temporary.write_text("weights")
            temporary.chmod(0o600)  # as some libraries create files
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644
