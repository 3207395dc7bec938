"""Dockerfiles, Compose file and scripts: linted, valid by schema, consistent with the code. Nothing is built here."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
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


def test_the_builder_script(tmp_path: Path) -> None:
    """Which files it copies and which commands it runs, with another folder for /source and commands that fail."""
    source, model, bin_folder = tmp_path / "source", tmp_path / "model", tmp_path / "bin"
    for folder in (source, model, bin_folder):
        folder.mkdir()
    for name in ("model.json", "model.onnx"):
        (source / name).write_text(name)
    for name in ("python", "alignseg"):
        (bin_folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/commands\nexit 1\n')
        (bin_folder / name).chmod(0o755)
    script = (ROOT / "docker" / "build_engines.sh").read_text().replace("/source", str(source))
    environment = {"PATH": f"{bin_folder}:/usr/bin:/bin", "ALIGNSEG_MODEL": str(model)}

    def run_script() -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603
            ["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=False
        )

    result = run_script()
    assert result.returncode == 0 and "no TensorRT engine was built" in result.stderr  # the server starts all the same
    assert sorted(path.name for path in model.iterdir()) == ["model.json", "model.onnx"]
    assert "-m model_export.build_engine" in (tmp_path / "commands").read_text()
    for path in source.iterdir():
        path.unlink()
    assert run_script().returncode == 2
    (source / "mine.pth").write_text("")
    assert run_script().returncode == 1  # a failed export is an error: there is no model
    assert f"alignseg export {source}/mine.pth --out {model}" in (tmp_path / "commands").read_text()
