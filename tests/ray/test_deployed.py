"""deploy/ray/serve.yaml with `serve deploy`: scales with the load, rejects with Retry-After, loses no request.

Changed in it: the model's path, ports, numbers of cores, Ray Serve's intervals, and the engines, which take 0.1 s.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from alignseg_serve.client import AsyncClient, Client
from service.app import create_app
from service.settings import Settings
from tests.ray.load import PNG, PROBLEM, under_load, until
from tests.support import tiny_model
from tests.support.fake_engine import serving_app
from tests.support.server_process import REPOSITORY

pytest.importorskip("ray")
MOST_ENGINES, MOST_IN_FLIGHT = 3, 12
QUICK = {"look_back_period_s": 0.4, "metrics_interval_s": 0.2, "upscale_delay_s": 0.2, "downscale_delay_s": 1}


@dataclass
class Deployed:
    url: str
    settings: Settings

    def pids(self, deployment: str) -> set[int]:
        """The process ids of its replicas."""
        from ray.util.state import list_actors

        actors = list_actors(
            filters=[("class_name", "=", f"ServeReplica:alignseg:{deployment}"), ("state", "=", "ALIVE")]
        )
        return {actor.pid for actor in actors}


def _shipped_config(model: Path, port: int) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((REPOSITORY / "deploy" / "ray" / "serve.yaml").read_text())
    config |= {"proxy_location": "HeadOnly", "http_options": {"host": "127.0.0.1", "port": port}}
    (app,) = config["applications"]
    app["import_path"] = "tests.ray.slow_engine_app:build"
    own = {"model": str(model), "engine": "onnxruntime-cpu", "max_in_flight": MOST_IN_FLIGHT, "drain_timeout_s": 5}
    app["args"]["settings"] |= own
    del app["args"]["settings"]["admin_port"]  # allows one ingress per node, and here all share one
    ingress, engine = app["deployments"]
    ingress["ray_actor_options"]["num_cpus"] = engine["ray_actor_options"]["num_cpus"] = 1
    engine["autoscaling_config"] |= {
        "min_replicas": 1, "max_replicas": MOST_ENGINES, "target_ongoing_requests": 2, **QUICK,
    }  # fmt: skip
    return config


@pytest.fixture(scope="module")
def deployed(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Generator[Deployed, None, None]:
    from ray import serve

    folder = tmp_path_factory.mktemp("deployed")
    tiny_model.write(folder / "another model")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    shipped = _shipped_config(folder / "another model", port)
    (folder / "serve.yaml").write_text(yaml.safe_dump(shipped))
    deploy = [sys.executable, "-c", "from ray.serve.scripts import cli; cli()", "deploy", "--address"]
    try:
        subprocess.run(  # noqa: S603
            [*deploy, f"http://{ray_cluster.webui_url}", str(folder / "serve.yaml")],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        deployed = Deployed(f"http://127.0.0.1:{port}", Settings(**shipped["applications"][0]["args"]["settings"]))
        until(lambda: _ready(deployed.url))
        yield deployed
    finally:
        serve.shutdown()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz/ready").is_success
    except httpx.HTTPError:
        return False


async def test_responses_equal_those_of_the_single_server(deployed: Deployed) -> None:
    async with serving_app(create_app(deployed.settings)) as single, httpx.AsyncClient(base_url=deployed.url) as http:
        mask = {"headers": {"Accept": "image/png"}, "content": PNG}
        assert (await http.post("/segment", **mask)).content == (await single.post("/segment", **mask)).content  # type: ignore[arg-type]
        assert (await http.get("/classes")).json() == (await single.get("/classes")).json()


def test_engine_replicas_scale_with_the_load(deployed: Deployed) -> None:
    until(lambda: len(deployed.pids("Engine")) == 1)
    with under_load(deployed.url, 1) as light:
        with under_load(deployed.url, 12) as heavy:
            until(lambda: len(deployed.pids("Engine")) == MOST_ENGINES)
            before = heavy.statuses.total()
            until(lambda: heavy.statuses.total() > before + 40)
        until(lambda: len(deployed.pids("Engine")) == 1)
        before = light.statuses.total()
        until(lambda: light.statuses.total() > before + 5)
    assert not heavy.failures + light.failures, heavy.messages + light.messages
    assert set(heavy.statuses) == set(light.statuses) == {200}


async def test_busy_engines_reject_with_a_retry_after_that_suffices(deployed: Deployed) -> None:
    """More requests than both ingresses admit: some are rejected, and none of a client that honours Retry-After."""
    requests = range(4 * MOST_IN_FLIGHT)
    many = httpx.AsyncClient(base_url=deployed.url, timeout=300, limits=httpx.Limits(max_connections=None))
    async with many as http:
        responses = await asyncio.gather(*(http.post("/segment", content=PNG) for _ in requests))
    assert {one.status_code for one in responses} == {200, 429}
    for one in (one for one in responses if one.status_code == 429):
        retry_after_s = one.json()["retry_after_s"]
        assert 0 < retry_after_s < MOST_IN_FLIGHT  # one engine alone does ten pictures in a second
        assert one.headers["Content-Type"] == PROBLEM
        assert int(one.headers["Retry-After"]) >= retry_after_s
    async with AsyncClient(deployed.url, timeout_s=60) as client:
        results = await asyncio.gather(*(client.segment(PNG) for _ in requests))
    assert all(one.classes for one in results)


def test_a_killed_ingress_fails_only_the_requests_in_it(deployed: Deployed) -> None:
    until(lambda: len(deployed.pids("Ingress")) == 2)
    answered: list[int] = []
    stop = threading.Event()

    def send_repeatedly() -> None:
        with Client(deployed.url, timeout_s=50) as client:
            while not stop.is_set():
                answered.append(len(client.segment(PNG).classes))

    client_thread = threading.Thread(target=send_repeatedly)
    with under_load(deployed.url, 4) as load:
        client_thread.start()
        until(lambda: len(answered) > 3)
        killed = min(deployed.pids("Ingress"))
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(deployed.pids("Ingress") - {killed}) == 2)  # Ray Serve started another
        before, until_now = load.statuses.total(), len(answered)
        until(lambda: load.statuses.total() > before + 20 and len(answered) > until_now + 3)
        stop.set()
        client_thread.join(120)
    assert len(load.failures) <= 4, load.messages  # at most one per client
    for lost in load.failures:
        assert isinstance(lost, httpx.Response)
        assert (lost.status_code, lost.text) == (500, "Internal Server Error")  # from the proxy
    assert len(answered) > until_now + 3  # the client retried
