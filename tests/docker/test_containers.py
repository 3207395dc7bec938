"""Dockerfiles, Compose file and scripts: linted, valid by schema, consistent with the code. Nothing is built here."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
Script = Callable[..., subprocess.CompletedProcess[str]]
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


def run(*command: object) -> None:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)  # noqa: S603
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_pass_hadolint(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    run(hadolint, path)


def test_compose_fits_the_published_schema() -> None:
    pytest.importorskip("check_jsonschema")
    run(
        sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml"
    )


def test_every_container_is_hardened(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
    for path in DOCKERFILES:
        assert re.findall(r"^USER (\S+)", path.read_text(), re.MULTILINE) == ["10001:10001"]


def test_images_are_pinned_by_tag(compose: dict[str, Any]) -> None:
    for path in DOCKERFILES:
        stages = re.findall(r"^FROM \S+ AS (\S+)", path.read_text(), re.MULTILINE)
        for image in re.findall(r"^FROM (\S+)", path.read_text(), re.MULTILINE):
            assert image in stages or re.search(r":\d+\.\d+\.\d+", image), image
    for service in compose["services"].values():
        assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_images_install_from_the_lock_files_alone() -> None:
    for path in DOCKERFILES:
        text = path.read_text().replace("\\\n", " ")
        installs = [" ".join(each.split()) for each in re.findall(r"pip install ([^&\n]*)", text)]
        assert installs
        for each in installs:
            from_lock = "--require-hashes --only-binary=:all: --requirement serve-" in each
            of_project = each == "--no-deps --no-build-isolation ."
            of_nvidia = each == "--no-deps --requirement tensorrt.lock"
            builder = each == "'.[tensorrt,export]' --constraint dev.lock --constraint tensorrt.lock"
            assert from_lock or of_project or of_nvidia or builder, each


def test_copied_paths_exist_and_are_the_build_context() -> None:
    context = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for path in DOCKERFILES:
        for sources in re.findall(r"^COPY (?!--from)(?:--\S+ )?(.+) \S+$", path.read_text(), re.MULTILINE):
            copied |= set(sources.split())
    assert copied == context
    assert all((ROOT / source).exists() for source in copied)


def test_every_package_of_the_project_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {pattern.removesuffix("*") for pattern in patterns}
    for path in DOCKERFILES:
        assert packages == set(re.findall(r"^COPY (\w+) \1$", path.read_text(), re.MULTILINE))


def test_variables_are_settings_of_the_server(compose: dict[str, Any]) -> None:
    known = {f"ALIGNSEG_{name.upper()}" for name in Settings.model_fields}
    for name in ("server", "server-cpu"):
        assert set(compose["services"][name]["environment"]) <= known
    for path in DOCKERFILES:
        assert set(re.findall(r"(ALIGNSEG_\w+)=", path.read_text())) <= known


def test_the_server_starts_after_the_engine_is_built(compose: dict[str, Any]) -> None:
    server, engine = compose["services"]["server"], compose["services"]["engine"]
    assert server["depends_on"] == {"engine": {"condition": "service_completed_successfully"}}
    assert engine["restart"] == "no"
    assert "model:/model" in engine["volumes"] and server["volumes"] == ["model:/model:ro"]
    assert engine["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert int(server["stop_grace_period"].removesuffix("s")) > Settings.model_fields["drain_timeout_s"].default


@pytest.fixture
def builder_script(tmp_path: Path) -> Script:
    """Runs build_engines.sh with tmp_path/source as /source and commands that end with `code`; records them."""
    bin_folder = tmp_path / "bin"
    for folder in (tmp_path / "source", tmp_path / "model", bin_folder):
        folder.mkdir()
    script = (ROOT / "docker" / "build_engines.sh").read_text().replace("/source", str(tmp_path / "source"))
    environment = {"PATH": f"{bin_folder}:/usr/bin:/bin", "ALIGNSEG_MODEL": str(tmp_path / "model")}

    def run_script(code: int = 0) -> subprocess.CompletedProcess[str]:
        for name in ("python", "alignseg"):
            (bin_folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/commands\nexit {code}\n')
            (bin_folder / name).chmod(0o755)
        return subprocess.run(  # noqa: S603
            ["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=False
        )

    return run_script


def test_the_builder_copies_a_model_and_builds_an_engine(tmp_path: Path, builder_script: Script) -> None:
    for name in ("model.json", "model.onnx"):
        (tmp_path / "source" / name).write_text(name)
    result = builder_script()
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.onnx"]
    assert "-m model_export.build_engine" in (tmp_path / "commands").read_text()


@pytest.mark.parametrize(
    ("code", "reason"), [(1, "engine was discarded, since its class maps"), (2, "engine was built")]
)
def test_without_an_engine_the_server_starts_all_the_same(
    tmp_path: Path, builder_script: Script, code: int, reason: str
) -> None:
    (tmp_path / "source" / "model.json").write_text("model")
    result = builder_script(code)
    assert result.returncode == 0
    assert reason in result.stderr and "The server runs the model in ONNX Runtime on the GPU" in result.stderr


def test_without_a_new_model_the_server_keeps_the_old_one(tmp_path: Path, builder_script: Script) -> None:
    """A failed export or an empty source is an error only where there is no model yet."""
    result = builder_script()
    assert result.returncode == 2 and "holds neither a model.json nor a checkpoint" in result.stderr
    (tmp_path / "source" / "mine.pth").write_text("")
    result = builder_script(1)
    assert result.returncode == 2 and "mine.pth was not exported (reason above)" in result.stderr
    assert f"alignseg export {tmp_path}/source/mine.pth --out {tmp_path}/model" in (tmp_path / "commands").read_text()
    assert "build_engine" not in (tmp_path / "commands").read_text()
    (tmp_path / "model" / "model.json").write_text("old")
    result = builder_script(1)
    assert result.returncode == 0 and "runs the model that was already in" in result.stderr
    (tmp_path / "source" / "mine.pth").unlink()
    assert builder_script().returncode == 0
