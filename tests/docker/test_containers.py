"""Containers without a container engine: linted, valid by schema, and true to the code that they run."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings
from service.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))
MONITORING = ROOT / "docker" / "monitoring"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def run(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


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


def test_everything_runs_hardened(compose: dict[str, Any]) -> None:
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


def test_packages_are_pinned_to_versions_that_the_extras_allow() -> None:
    lines = (ROOT / "docker" / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = (
        *project["dependencies"],
        *(each for name in ("cpu", "gpu", "tensorrt", "export", "ray") for each in extras[name]),
    )
    for requirement in map(Requirement, asked):
        if requirement.name != "triton":  # PyTorch pins the one it was built with
            assert requirement.specifier.contains(pinned[requirement.name]), requirement
    for path in DOCKERFILES:
        installs = re.findall(r"pip install (.*)", path.read_text())
        assert installs and all("--constraint constraints.txt" in each for each in installs)


def test_what_is_copied_exists_and_is_let_through() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for path in DOCKERFILES:
        for sources in re.findall(r"^COPY (?!--from)(?:--\S+ )?(.+) \S+$", path.read_text(), re.MULTILINE):
            for source in sources.split():
                assert source in let_through
                assert (ROOT / source).exists()


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


def test_figures_that_are_drawn_are_figures_that_there_are() -> None:
    figures = Metrics()
    source = "".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    for name in re.findall(r'metrics\.add_gauge\(\s*"(\w+)"', source):  # those that the server adds when it starts
        figures.add_gauge(name, "a gauge", lambda: 0.0)
    known = set()
    for family in text_string_to_metric_families(figures.render().decode()):
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        known |= {family.name + suffix for suffix in suffixes}
    dashboard = json.loads((MONITORING / "grafana" / "dashboards" / "alignseg.json").read_text())
    drawn = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    for expression in (*drawn, *(rule["expr"] for rule in rules)):
        named = set(re.findall(r"\b(?:alignseg|process)_\w+", expression))
        assert named and named <= known, expression


def test_provisioning_points_at_what_is_mounted(compose: dict[str, Any]) -> None:
    mounted = [volume.split(":") for volume in compose["services"]["grafana"]["volumes"]]
    for source, *_ in mounted:
        assert not source.startswith("./") or (ROOT / source).exists()
    provider = yaml.safe_load((MONITORING / "grafana/provisioning/dashboards/alignseg.yml").read_text())["providers"][0]
    assert provider["options"]["path"] in {target for _, target, *_ in mounted}
    data = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert data["datasources"][0]["url"] == "http://prometheus:9090"
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"][0]
    hosts = {target.split(":")[0] for target in scraped["static_configs"][0]["targets"]}
    assert hosts <= set(compose["services"])


def test_the_builder_script(tmp_path: Path) -> None:
    """Its file handling, with /source and the builder's commands stood in for."""
    source, model, bin_folder = tmp_path / "source", tmp_path / "model", tmp_path / "bin"
    for folder in (source, model, bin_folder):
        folder.mkdir()
    for name in ("model.json", "model.onnx"):
        (source / name).write_text(name)
    for name in ("python", "alignseg"):
        (bin_folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/called\nexit 1\n')
        (bin_folder / name).chmod(0o755)
    script = (ROOT / "docker" / "build_engines.sh").read_text().replace("/source", str(source))
    environment = {"PATH": f"{bin_folder}:/usr/bin:/bin", "ALIGNSEG_MODEL": str(model)}

    def built() -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603
            ["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=False
        )

    done = built()
    assert (
        done.returncode == 0 and "no engine (see above)" in done.stderr
    )  # a failed build does not keep the server away
    assert sorted(path.name for path in model.iterdir()) == ["model.json", "model.onnx"]
    assert "-m model_export.build_engine" in (tmp_path / "called").read_text()
    for path in source.iterdir():
        path.unlink()
    assert built().returncode == 2
    (source / "mine.pth").write_text("")
    assert built().returncode == 1  # a failed export does
    assert f"alignseg export {source}/mine.pth --out {model}" in (tmp_path / "called").read_text()
