"""The YAML that is shipped, by `serve deploy`: grows and shrinks with the load, says when to come back, loses nothing.

Changed in it are the model's path, ports, numbers of cores, how soon Serve looks, and the engines, which take 0.1 s.
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
        """Of its living replicas."""
        from ray.util.state import list_actors

        found = list_actors(
            filters=[("class_name", "=", f"ServeReplica:alignseg:{deployment}"), ("state", "=", "ALIVE")]
        )
        return {actor.pid for actor in found}


def _shipped(model: Path, port: int) -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load((REPOSITORY / "deploy" / "ray" / "serve.yaml").read_text())
    told |= {"proxy_location": "HeadOnly", "http_options": {"host": "127.0.0.1", "port": port}}
    (app,) = told["applications"]
    app["import_path"] = "tests.ray.slow_engine_app:build"
    own = {"model": str(model), "engine": "onnxruntime-cpu", "max_in_flight": MOST_IN_FLIGHT, "drain_timeout_s": 5}
    app["args"]["settings"] |= own
    del app["args"]["settings"]["admin_port"]  # of one way in on a node, and here all share one
    way_in, engine = app["deployments"]
    way_in["ray_actor_options"]["num_cpus"] = engine["ray_actor_options"]["num_cpus"] = 1
    engine["autoscaling_config"] |= {
        "min_replicas": 1, "max_replicas": MOST_ENGINES, "target_ongoing_requests": 2, **QUICK,
    }  # fmt: skip
    return told


@pytest.fixture(scope="module")
def deployed(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Generator[Deployed, None, None]:
    from ray import serve

    folder = tmp_path_factory.mktemp("deployed")
    tiny_model.write(folder / "another model")
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    shipped = _shipped(folder / "another model", port)
    (folder / "serve.yaml").write_text(yaml.safe_dump(shipped))
    deploy = [sys.executable, "-c", "from ray.serve.scripts import cli; cli()", "deploy", "--address"]
    try:
        subprocess.run(  # noqa: S603
            [*deploy, f"http://{ray_cluster.webui_url}", str(folder / "serve.yaml")],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        it = Deployed(f"http://127.0.0.1:{port}", Settings(**shipped["applications"][0]["args"]["settings"]))
        until(lambda: _ready(it.url))
        yield it
    finally:
        serve.shutdown()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz/ready").is_success
    except httpx.HTTPError:
        return False


async def test_another_model_is_served_as_by_the_single_server(deployed: Deployed) -> None:
    async with serving_app(create_app(deployed.settings)) as single, httpx.AsyncClient(base_url=deployed.url) as http:
        mask = {"headers": {"Accept": "image/png"}, "content": PNG}
        assert (await http.post("/segment", **mask)).content == (await single.post("/segment", **mask)).content  # type: ignore[arg-type]
        assert (await http.get("/classes")).json() == (await single.get("/classes")).json()


def test_engines_come_and_go_with_the_load(deployed: Deployed) -> None:
    until(lambda: len(deployed.pids("Engine")) == 1)
    with under_load(deployed.url, 1) as little:
        with under_load(deployed.url, 12) as much:
            until(lambda: len(deployed.pids("Engine")) == MOST_ENGINES)
            before = much.statuses.total()
            until(lambda: much.statuses.total() > before + 40)
        until(lambda: len(deployed.pids("Engine")) == 1)
        before = little.statuses.total()
        until(lambda: little.statuses.total() > before + 5)
    assert not much.failures + little.failures, much.told + little.told
    assert set(much.statuses) == set(little.statuses) == {200}


async def test_engines_that_back_up_say_when_to_come_back(deployed: Deployed) -> None:
    """More at once than both ways in have places for: some are refused, and none who then waits as it is told."""
    crowd = range(4 * MOST_IN_FLIGHT)
    many = httpx.AsyncClient(base_url=deployed.url, timeout=60, limits=httpx.Limits(max_connections=None))
    async with many as http:
        answers = await asyncio.gather(*(http.post("/segment", content=PNG) for _ in crowd))
    assert {one.status_code for one in answers} == {200, 429}
    for one in (one for one in answers if one.status_code == 429):
        told_s = one.json()["retry_after_s"]
        assert 0 < told_s < MOST_IN_FLIGHT  # one engine alone does ten pictures in a second
        assert one.headers["Content-Type"] == PROBLEM
        assert int(one.headers["Retry-After"]) >= told_s
    async with AsyncClient(deployed.url, timeout_s=60) as client:
        found = await asyncio.gather(*(client.segment(PNG) for _ in crowd))
    assert all(one.classes for one in found)


def test_a_killed_way_in_takes_along_what_was_in_it_and_no_more(deployed: Deployed) -> None:
    until(lambda: len(deployed.pids("Ingress")) == 2)
    answered: list[int] = []
    stop = threading.Event()

    def again() -> None:
        with Client(deployed.url, timeout_s=50) as client:
            while not stop.is_set():
                answered.append(len(client.segment(PNG).classes))

    ours = threading.Thread(target=again)
    with under_load(deployed.url, 4) as found:
        ours.start()
        until(lambda: len(answered) > 3)
        killed = min(deployed.pids("Ingress"))
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(deployed.pids("Ingress") - {killed}) == 2)  # Serve made another
        before, until_now = found.statuses.total(), len(answered)
        until(lambda: found.statuses.total() > before + 20 and len(answered) > until_now + 3)
        stop.set()
        ours.join(60)
    assert len(found.failures) <= 4, found.told  # at most what each client had in it
    for lost in found.failures:
        assert isinstance(lost, httpx.Response)
        assert (lost.status_code, lost.text) == (500, "Internal Server Error")  # the proxy's word, not ours
    assert len(answered) > until_now + 3  # our client has sent what it lost once more
