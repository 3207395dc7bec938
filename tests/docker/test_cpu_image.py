"""The CPU image, really built and run: non-root, on a read-only root, until SIGTERM."""

import io
import json
import re
import shutil
import time
from collections.abc import Generator
from importlib.metadata import distributions
from pathlib import Path

import httpx
import pytest
from PIL import Image as PillowImage

from requirements import lock, sbom
from tests.docker import cpu_image
from tests.docker.cpu_image import ROOT, Container, Image

REASON = cpu_image.missing()
pytestmark = [
    pytest.mark.image,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]
PACKAGES = {"service", "model_export", "training", "alignseg_serve"}
SCENE = (ROOT / "service" / "web" / "scene.jpg").read_bytes()
STARTUP_S = 600
NEEDED_BYTES = 4 * 1024**3


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Generator[Image, None, None]:
    memory = Path("/dev/shm")  # debootstrap waits for the disk after each file
    work = tmp_path_factory.mktemp("image")
    if memory.is_dir() and shutil.disk_usage(memory).free > 2 * NEEDED_BYTES:
        work = memory / f"alignseg-image-{time.time_ns()}"
        work.mkdir(mode=0o700)
    with cpu_image.build(work) as built:
        yield built


@pytest.fixture(scope="module")
def container(image: Image) -> Generator[Container, None, None]:
    with cpu_image.running(image) as started:
        deadline = time.monotonic() + STARTUP_S
        while time.monotonic() < deadline and started.process.poll() is None:
            if is_ready(started):
                break
            time.sleep(0.2)
        assert is_ready(started), started.process.stderr and started.process.stderr.read()
        yield started


def is_ready(container: Container) -> bool:
    try:
        return httpx.get(f"{container.url}/healthz/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_the_image_holds_the_packages_and_nothing_else_of_the_repository(image: Image) -> None:
    (installed,) = image.root.glob("opt/alignseg/lib/python3*/site-packages")
    assert {path.name for path in installed.iterdir()} >= PACKAGES
    assert not {"tests", "benchmarks", "docs", "torch", "pip"} & {path.name for path in installed.iterdir()}
    expected = {path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    expected |= {path.relative_to(ROOT) for path in (ROOT / "service" / "web").glob("*.*")}
    expected |= {path.relative_to(ROOT) for path in (ROOT / "service" / "grpc_api").glob("open_inference.*")}
    copied = {path.relative_to(installed) for name in PACKAGES for path in (installed / name).rglob("*.*")}
    assert {path for path in copied if path.suffix != ".pyc" and path.name != "__pycache__"} == expected
    model = {path.name for path in (ROOT / "weights" / "alignseg-lite").iterdir()} - {"engines"}
    assert {path.name for path in (image.root / "model").iterdir()} == model


def test_the_image_holds_exactly_the_versions_of_the_lock(image: Image) -> None:
    (folder,) = image.root.glob("opt/alignseg/lib/python3*/site-packages")
    installed = {normal(each.metadata["Name"]): each.version for each in distributions(path=[str(folder)])}
    assert installed.pop("alignseg-serve")
    assert installed == locked_versions()


def test_its_bill_of_materials_names_these_versions(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cyclonedx_py", reason="needs cyclonedx-bom: make dev")
    monkeypatch.setattr(sbom, "OUTPUT", tmp_path)
    sbom.of_image("localhost/alignseg-serve:cpu", "buildah", image.storage)
    (path,) = tmp_path.iterdir()
    components = json.loads(path.read_text())["components"]
    described = {normal(each["name"]): each["version"] for each in components}
    described.pop("alignseg-serve", None)
    assert described == locked_versions()


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.lower())


def locked_versions() -> dict[str, str]:
    locked = lock.pinned(lock.FOLDER / "serve-cpu.lock")
    del locked["setuptools"]  # builds the project and is removed
    return locked


def test_the_image_declares_how_it_runs(image: Image) -> None:
    assert image.config["User"] == "10001:10001"
    assert image.config["StopSignal"] == "SIGTERM"
    assert image.config["Healthcheck"]["Test"][0] == "CMD"  # type: ignore[index]
    assert image.config["ExposedPorts"] == {"8000/tcp": {}}


def test_it_segments_an_image_without_rights(container: Container) -> None:
    headers = {"Content-Type": "image/jpeg", "Accept": "image/png"}
    response = httpx.post(f"{container.url}/segment", content=SCENE, headers=headers, timeout=300)
    assert response.status_code == 200, response.text
    assert PillowImage.open(io.BytesIO(response.content)).size == PillowImage.open(io.BytesIO(SCENE)).size
    status = Path(f"/proc/{container.pid}/status").read_text()
    assert "Uid:\t10001\t10001\t10001\t10001" in status
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
    for folder in ("/", "/model", "/opt/alignseg"):
        failed = container.execute("touch", f"{folder}/file")
        assert "Read-only file system" in failed.stderr, failed
    assert container.execute("touch", "/tmp/file").returncode == 0


def test_the_health_check_passes(container: Container) -> None:
    command = container.image.config["Healthcheck"]["Test"][1:]  # type: ignore[index]
    result = container.execute(*command)
    assert result.returncode == 0, result


def test_sigterm_ends_it_with_exit_code_0(container: Container) -> None:
    code, log = container.stop()
    assert code == 0, log
    assert '"level":"error"' not in log
