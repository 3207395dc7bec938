"""Label Studio's real server: a project, an uploaded image, and predictions from `alignseg label-studio`.

Skipped where Label Studio is not installed. It needs an environment of its own, since it excludes our NumPy:

    python3 -m venv .venv-label-studio && .venv-label-studio/bin/pip install label-studio
    PATH=$PATH:$PWD/.venv-label-studio/bin pytest tests/e2e/test_label_studio_server.py
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from alignseg_serve.client import Client
from tests.alignseg_serve.annotation.test_brush_rle import decode
from tests.support.server_process import running, serve

REPOSITORY = Path(__file__).resolve().parents[2]
SCENE = REPOSITORY / "docs" / "scene.png"
TOKEN = "0123456789abcdef0123456789abcdef01234567"  # noqa: S105  # of a server that the test starts
CLASSES = "road=drivable,pavement=drivable,*"
LABELS = ("drivable", "sky", "building")
CONFIG = f"""<View><Image name="image" value="$image"/><BrushLabels name="tag" toName="image">
{"".join(f'<Label value="{label}"/>' for label in LABELS)}</BrushLabels></View>"""
PROGRAM = shutil.which("label-studio")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def process(command: list[str], url: str, **environment: str) -> Generator[None, None, None]:
    """Runs until the end of the block, from the first response of `url` on."""
    started = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, **environment})  # noqa: S603
    try:
        while started.poll() is None:
            try:
                if httpx.get(url).status_code < 500:
                    break
            except httpx.TransportError:
                time.sleep(0.5)
        assert started.poll() is None, f"{command[0]} ended with {started.returncode}"
        yield
    finally:
        started.terminate()
        started.wait(60)


@contextmanager
def label_studio(folder: Path) -> Generator[str, None, None]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    environment = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder), "LABEL_STUDIO_USERNAME": "me@example.com",
        "LABEL_STUDIO_PASSWORD": "secret-123", "LABEL_STUDIO_USER_TOKEN": TOKEN,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true", "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "COLLECT_ANALYTICS": "False", "LATEST_VERSION_CHECK": "False", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": "",
    }  # fmt: skip
    command = [str(PROGRAM), "start", "--no-browser", "--internal-host", "127.0.0.1", "--host", url]
    with process([*command, "--port", str(port)], f"{url}/health", **environment):
        yield url


@contextmanager
def backend(server: str, studio: str) -> Generator[str, None, None]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "alignseg_serve", "label-studio", "--server", server, "--label-studio", studio]
    with process([*command, "--classes", CLASSES, "--port", str(port)], f"{url}/health", LABEL_STUDIO_API_KEY=TOKEN):
        yield url


def pre_label(studio: str, backend_url: str) -> list[dict[str, Any]]:
    """Make a project, connect the backend, upload the scene and retrieve predictions, as the pages of a browser do."""
    headers = {"Authorization": f"Token {TOKEN}"}
    with httpx.Client(base_url=studio, headers=headers, timeout=300) as http:

        def send(path: str, **content: Any) -> Any:
            response = http.post(path, **content)
            assert response.is_success, f"{path}: {response.status_code} {response.text[:2000]}"
            return response.json()

        project = send("/api/projects", json={"title": "streets", "label_config": CONFIG})["id"]
        connected = send("/api/ml", json={"project": project, "url": backend_url, "title": "alignseg"})
        assert connected["state"] == "CO"
        send(f"/api/projects/{project}/import", files={"file": ("scene.png", SCENE.read_bytes())})
        selection = {"selectedItems": {"all": True, "excluded": []}}
        send(f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}", json=selection)
        predictions: list[dict[str, Any]] = http.get("/api/predictions", params={"project": project}).json()
    return predictions


def check(predictions: list[dict[str, Any]], server: str) -> None:
    (prediction,) = predictions
    with Client(server) as client:
        ours = client.segment(SCENE, classes=CLASSES.split(","), confidence=True)
    assert prediction["model_version"] == f"{ours.model} {ours.version}"
    regions = {region["value"]["brushlabels"][0]: region for region in prediction["result"]}
    present = {entry.name: entry for entry in ours.classes if entry.name in LABELS}
    assert regions.keys() == present.keys()
    for name, entry in present.items():
        mask = decode(bytes(regions[name]["value"]["rle"])).reshape(ours.height, ours.width, 4)[..., 3]
        np.testing.assert_array_equal(mask == 255, ours.mask == entry.id)
        assert regions[name]["score"] == entry.confidence


@pytest.mark.skipif(PROGRAM is None, reason="needs label-studio in an environment of its own: see this file")
@pytest.mark.timeout(1200)  # Label Studio's first start makes its database
def test_predictions_are_the_server_s_masks(tmp_path: Path) -> None:
    with (
        running(serve(REPOSITORY / "weights" / "alignseg-lite")) as server,
        label_studio(tmp_path) as studio,
        backend(server.url, studio) as backend_url,
    ):
        check(pre_label(studio, backend_url), server.url)
