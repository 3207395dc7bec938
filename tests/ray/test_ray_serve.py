"""The application on a real Ray cluster of several nodes, over real HTTP: the single server's responses, none lost."""

import json
import os
import select
import signal
import socket
import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.admission.stalled_uploads import MAX_PAUSE_S
from service.app import create_app
from service.engines.selection import open_engines
from service.model_folder.manifest import FILE_NAME, Manifest
from service.settings import Settings
from service.types import Engine
from tests.ray.load import PNG, under_load, until
from tests.support import tiny_model
from tests.support.background import meanwhile
from tests.support.fake_engine import encoded, serving_app, striped

pytest.importorskip("ray")


def open_and_record(settings: Settings, manifest: Manifest) -> list[Engine]:
    """Open real engines, and record which process on which node did."""
    import ray

    engines: list[Engine] = list(open_engines(settings, manifest))
    notes = settings.model.parent / "replicas"
    notes.mkdir(exist_ok=True)
    (notes / str(os.getpid())).write_text(ray.get_runtime_context().get_node_id())
    return engines


@dataclass
class Deployment:
    url: str
    settings: Settings
    cluster: Any

    def replicas(self) -> dict[int, str]:
        """The engine processes that are alive, and their nodes."""
        notes = (self.settings.model.parent / "replicas").iterdir()
        return {int(note.name): note.read_text() for note in notes if _is_alive(int(note.name))}

    def wait_for_engines(self, count: int) -> None:
        for _ in range(3000):
            if f"alignseg_engines_healthy {count}.0" in httpx.get(f"{self.url}/metrics").text:
                return
            time.sleep(0.1)
        raise AssertionError(f"never {count} engines")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"  # Z: dead, not yet reaped
    except OSError:
        return False


@pytest.fixture(scope="module")
def deployment(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Generator[Deployment, None, None]:
    from ray import serve

    from service.ray_serve import application as ray_serve

    folder = tmp_path_factory.mktemp("ray_serve") / "model"
    tiny_model.write(folder)
    settings = Settings(model=folder, engine="onnxruntime-cpu", model_poll_s=0.1, drain_timeout_s=5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(
            ray_serve.application(
                settings, ray_serve.RayServeConfig(engines=2, ingress_resources={"head": 1}), open_and_record
            ),
            name=ray_serve.NAME,
            route_prefix="/",
        )
        yield Deployment(f"http://127.0.0.1:{port}", settings, ray_cluster)
    finally:
        serve.shutdown()


REQUESTS = [
    ("POST", "/segment", {"Accept": "image/png"}, PNG),
    ("POST", "/segment", {"Accept": "application/x-npy"}, encoded(striped(48, 300), "JPEG")),
    ("POST", "/segment?masks=rle&confidence=true", {}, PNG),
    ("POST", "/segment?tile=true", {"Accept": "image/webp"}, encoded(striped(200, 300))),
    ("POST", "/segment?classes=nothing", {}, PNG),
    ("POST", "/segment", {"Accept": "text/html"}, PNG),
    ("POST", "/segment", {}, b"no picture"),
    ("POST", "/segment", {}, PNG[:-40]),
    ("POST", "/segment", {"X-Request-Timeout-Ms": "soon"}, PNG),
    ("GET", "/segment", {}, b""),
    ("GET", "/nowhere", {}, b""),
    ("GET", "/classes", {}, b""),
    ("GET", "/healthz/ready", {}, b""),
    ("GET", "/v2/models/tiny", {}, b""),
]
OWN = {"date", "server", "server-timing", "x-request-id", "content-length"}  # of one request, or of the HTTP server


async def test_responses_equal_those_of_the_single_server(deployment: Deployment) -> None:
    async with (
        serving_app(create_app(deployment.settings)) as single,
        httpx.AsyncClient(base_url=deployment.url) as http,
    ):
        for method, path, headers, body in REQUESTS:
            one = await single.request(method, path, headers=headers, content=body)
            other = await http.request(method, path, headers=headers, content=body)
            assert _comparable(one) == _comparable(other), path


def _comparable(response: httpx.Response) -> tuple[int, dict[str, str], Any]:
    headers = {name: value for name, value in response.headers.items() if name not in OWN}
    assert len(response.headers.get_list("x-request-id")) == 1
    if not response.headers["content-type"].endswith("json"):
        return response.status_code, headers, response.content
    body = json.loads(response.content)
    return response.status_code, headers, {k: v for k, v in body.items() if k not in {"timing_ms", "request_id"}}


def test_metrics_include_the_engines(deployment: Deployment) -> None:
    httpx.post(f"{deployment.url}/segment", content=PNG)
    deployment.wait_for_engines(2)
    page = httpx.get(f"{deployment.url}/metrics").text
    assert 'alignseg_model_serving{engine="onnxruntime-cpu",model="tiny",version="1"} 1.0' in page
    assert 'alignseg_batch_size_count{model="tiny"}' in page
    assert 'alignseg_requests_total{route="/segment",status="200"}' in page


def keep_sending(uploads: list[socket.socket]) -> AbstractContextManager[None]:
    """Send 16 kB/s on each connection until the context ends."""

    def send() -> None:
        for one in uploads:
            one.sendall(b"x" * 4000)

    return meanwhile(send, 0.25)


def test_a_full_server_rejects_with_retry_after(deployment: Deployment) -> None:
    """Uploads that never end occupy all slots, and keep them while they send."""
    limit = deployment.settings.max_in_flight
    host, _, port = deployment.url.removeprefix("http://").partition(":")
    head = b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 2000000\r\n\r\n"
    held = [socket.create_connection((host, int(port))) for _ in range(limit)]
    try:
        for one in held:
            one.sendall(head)
        with keep_sending(held):
            until(lambda: f"alignseg_in_flight {limit}.0" in httpx.get(f"{deployment.url}/metrics").text, 20)
            rejected = httpx.post(f"{deployment.url}/segment", content=PNG)
        assert rejected.status_code == 429
        assert int(rejected.headers["Retry-After"]) >= 1
        assert rejected.json()["type"].endswith("overloaded")
        time.sleep(MAX_PAUSE_S + 0.5)
        assert httpx.post(f"{deployment.url}/segment", content=PNG).status_code == 200
        closed, _, _ = select.select(held, [], [], 10)
        assert [one.recv(4096)[:12] for one in closed] == [b"HTTP/1.1 408"]
    finally:
        for one in held:
            one.close()
    until(lambda: "alignseg_in_flight 0.0" in httpx.get(f"{deployment.url}/metrics").text, 20)


def test_a_new_model_under_load_fails_no_request(deployment: Deployment) -> None:
    path = deployment.settings.model / FILE_NAME
    with under_load(deployment.url) as load:
        description = json.loads(path.read_text())
        (part := path.with_suffix(".part")).write_text(json.dumps(description | {"version": "2"}))
        part.replace(path)
        until(lambda: "2" in load.versions[-4:])
        until(lambda: load.versions[-20:] == ["2"] * 20)
    assert not load.failures, load.messages
    assert set(load.versions) == {"1", "2"}


def test_a_killed_replica_fails_no_request(deployment: Deployment) -> None:
    deployment.wait_for_engines(2)
    with under_load(deployment.url) as load:
        killed = min(deployment.replicas())
        os.kill(killed, signal.SIGKILL)
        until(
            lambda: len(deployment.replicas()) == 2 and killed not in deployment.replicas()
        )  # Ray Serve started another
        before = load.statuses.total()
        until(lambda: load.statuses.total() > before + 20)
    assert not load.failures, load.messages
    assert set(load.statuses) == {200}


def test_a_killed_node_fails_no_request(deployment: Deployment) -> None:
    deployment.wait_for_engines(2)
    with under_load(deployment.url) as load:
        gone = deployment.replicas()[min(deployment.replicas())]
        node = next(node for node in deployment.cluster.worker_nodes if node.node_id == gone)
        deployment.cluster.remove_node(node, allow_graceful=False)
        until(lambda: len(deployment.replicas()) == 2 and gone not in deployment.replicas().values())
        before = load.statuses.total()
        until(lambda: load.statuses.total() > before + 20)
    assert not load.failures, load.messages
    assert set(load.statuses) == {200}
