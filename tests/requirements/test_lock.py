"""The lock files: exact, hashed where something serves, alike, and within what pyproject.toml allows."""

import re
import tomllib
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement

from requirements import lock

ROOT: Final = Path(__file__).parents[2]
EXTRAS: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
DEPENDENCIES: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
# boto3, of a development tool, asks for an older python-dateutil than pandas, of Ray, is served with.
DIFFERING: Final = {"setuptools", "python-dateutil"}
HASHED: Final = (*lock.SERVE, "tools")
ENTRY: Final = re.compile(r"^[a-z0-9][a-z0-9.-]*==(?:[^\n\\]|\\\n)*", re.MULTILINE)


def read(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.lock").read_text()


@pytest.mark.parametrize("name", HASHED)
def test_every_version_has_hashes(name: str) -> None:
    entries = ENTRY.findall(read(name))
    assert len(entries) >= 20
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("name", [*lock.NAMES, "tensorrt"])
def test_no_host_and_no_path_is_in_a_lock_file(name: str) -> None:
    text = read(name)
    assert "//" not in text and "@" not in text
    options = [line for line in text.splitlines() if line.startswith("-")]
    assert not options
    assert not re.search(r"(?m)^[^#\s]", re.sub(r"(?m)^[a-z0-9][\w.-]*==", "", ENTRY.sub("", text)))


@pytest.mark.parametrize("name", lock.SERVE)
def test_what_serves_is_locked_as_pyproject_asks(name: str) -> None:
    versions = lock.pinned(lock.FOLDER / f"{name}.lock")
    wanted = [*DEPENDENCIES, *(each for extra in lock.SERVE[name] for each in EXTRAS[extra])]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(versions[requirement.name]), requirement
    assert not {"torch", "onnx", "onnxscript", "triton"} & versions.keys()


def test_development_is_locked_as_pyproject_asks() -> None:
    versions = lock.pinned(lock.FOLDER / "dev.lock")
    for extra in ("test", "export", "train", "client", "cpu", "otel", "ray"):
        for requirement in map(Requirement, EXTRAS[extra]):
            if requirement.name == "alignseg-serve" or lock.CHOSEN_BY_TORCH.match(f"{requirement.name}=="):
                continue
            name = re.sub(r"[_.]", "-", requirement.name)
            assert requirement.specifier.contains(versions[name]), requirement
    assert "torch" not in versions  # its build differs by machine


def test_a_package_has_the_same_version_wherever_it_is_locked() -> None:
    serving = [lock.pinned(lock.FOLDER / f"{name}.lock") for name in (*lock.SERVE, "dev")]
    for first in serving:
        for second in serving:
            differing = {name for name in first.keys() & second.keys() if first[name] != second[name]}
            assert differing <= DIFFERING, lock.changes(first, second)


def test_changes_are_listed_by_package() -> None:
    before = {"pillow": "12.3.0", "orjson": "3.13.0", "six": "1.17.0"}
    after = {"pillow": "13.0.0", "orjson": "3.13.0", "zlib-ng": "1.1.0"}
    assert lock.changes(before, after) == [
        "  pillow 12.3.0 -> 13.0.0",
        "  six 1.17.0 -> (removed)",
        "  zlib-ng (new) -> 1.1.0",
    ]


def test_an_unknown_lock_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock.sys, "version_info", (3, 11, 7))
    monkeypatch.setattr(lock.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(lock.sys, "platform", "linux")
    with pytest.raises(SystemExit, match=r"Unknown lock file serve-tpu\. Expected some of: serve-cpu, "):
        lock.main(["serve-tpu"])
