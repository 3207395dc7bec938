"""Short runs of the commands in benchmarks/: what must hold at any speed. No timing is asserted here."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.harness import SCENE, ServerProcess, fake_engine_server, serving
from benchmarks.server import client_disconnects, fuzz_decoder, load_client, load_generator, soak
from benchmarks.server import overload as load
from tests.support import tiny_model
from tests.support.fake_engine import encoded
from tests.support.server_process import Process, running, serve, stand_in


@pytest.fixture(scope="module")
def watched() -> Generator[ServerProcess, None, None]:
    with serving(fake_engine_server(0.3)) as server:
        yield server
    assert not [line for line in server.log if "Traceback" in line]


def test_at_four_times_the_capacity_every_request_is_answered() -> None:
    plan = load.Plan(infer_ms=3.0, max_batch=1, factors=(4.0,), seconds=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "WARM_UP_S", 0.5)
        report = load.run(plan)
    (overload,) = report["overload"]
    assert set(overload["statuses"]) <= {"200", "429"}
    assert overload["statuses"]["200"] > 0


def test_mutated_images_cause_no_server_error(watched: ServerProcess) -> None:
    report = fuzz_decoder.run(watched, 150, 2)
    assert report["failures"] == []
    assert {"200", "400"} <= set(report["statuses"])


def test_mutations_are_reproducible() -> None:
    files = fuzz_decoder.seeds()
    assert [fuzz_decoder.mutated(files, i) for i in range(50)] == [fuzz_decoder.mutated(files, i) for i in range(50)]
    assert len({fuzz_decoder.mutated(files, i) for i in range(50)}) > 45


def test_many_disconnecting_clients_leave_nothing_behind(watched: ServerProcess) -> None:
    report = client_disconnects.run(watched, 0.6)
    for phase in ("before", "during", "after"):
        assert report[phase]["still_in_flight"] == 0
        assert report[phase]["other_statuses"] == []
    assert report["during"]["disconnected"] > 0
    assert report["during"]["computed_for_disconnected"] <= report["during"]["disconnected"]
    assert report["after"]["computed_for_disconnected"] == 0


def test_a_short_soak_has_only_200_and_429(watched: ServerProcess) -> None:
    report = soak.run(watched, seconds=1.5, step_s=0.5)
    assert set(report["statuses"]) <= {"200", "429"}
    assert len(report["steps"]) == 2


def test_a_fast_rejection_looks_like_one_of_the_application(tmp_path: Path) -> None:
    """FastReject responds below ASGI; a client must not see a difference."""
    with running(stand_in(1000, warm_ms=1), max_in_flight=1) as process:
        body = SCENE.read_bytes()
        httpx.post(f"{process.url}/segment", content=body)
        busy = threading.Thread(target=httpx.post, args=(f"{process.url}/segment",), kwargs={"content": body})
        busy.start()
        process.wait_until_in_flight(1)
        with httpx.Client(base_url=process.url) as client:
            rejected = client.post("/segment", content=body, headers={"X-Request-Id": "mine"})
            again = client.post("/segment?a=b", content=b"")  # on the same connection
            metrics = client.get("/metrics").text
        busy.join()
        with httpx.Client(base_url=process.url) as client:
            assert client.post("/segment", content=body).status_code == 200
        assert process.stop() == 0
    assert (rejected.status_code, again.status_code) == (429, 429)
    assert rejected.headers["content-type"] == "application/problem+json"
    assert rejected.headers["x-request-id"] == rejected.json()["request_id"] == "mine"
    assert int(rejected.headers["retry-after"]) >= 1
    assert 0 < int(rejected.headers["retry-after-ms"]) <= 60_000
    assert rejected.headers["x-content-type-options"] == "nosniff"
    assert rejected.json()["type"] == "urn:alignseg:problem:overloaded"
    assert 'alignseg_requests_rejected_total{reason="overloaded-count"} 2.0' in metrics
    assert 'alignseg_requests_total{route="/segment",status="429"} 2.0' in metrics


@pytest.mark.parametrize("settings", [{}, {"cors_origins": "https://a.example"}], ids=["fast", "application"])
def test_a_rejection_is_sent_before_the_body_arrives(settings: dict[str, str]) -> None:
    with running(stand_in(2000, warm_ms=1), max_in_flight=1, **settings) as process:
        body = SCENE.read_bytes()
        busy = threading.Thread(target=httpx.post, args=(f"{process.url}/segment",), kwargs={"content": body})
        busy.start()
        process.wait_until_in_flight(1)
        with socket.create_connection(("127.0.0.1", process.port), timeout=10) as connection:
            connection.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 429 ")
        busy.join()


def test_an_endless_head_is_rejected(watched: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", watched.port), timeout=10) as connection:
        connection.sendall(b"GET /classes HTTP/1.1\r\nX: ")
        try:
            for _ in range(200):
                connection.sendall(b"a" * 10_000)
        except (BrokenPipeError, ConnectionResetError):
            return
        assert b" 400 " in connection.recv(4096)


def test_health_and_metrics_on_the_admin_port(tmp_path: Path) -> None:
    with running(stand_in(1), admin_port=0, api_keys="secret") as process:
        main, admin = process.urls
        for path in ("/healthz/live", "/healthz/ready", "/metrics"):
            assert httpx.get(admin + path).status_code == 200
            assert httpx.get(main + path).status_code in {401, 404}
        assert httpx.post(f"{admin}/segment", content=b"").status_code == 404
        headers = {"X-API-Key": "secret"}
        assert httpx.post(f"{main}/segment", content=SCENE.read_bytes(), headers=headers).status_code == 200
        assert 'alignseg_requests_total{route="/segment",status="200"} 1.0' in httpx.get(f"{admin}/metrics").text
        assert process.stop() == 0


async def test_sigterm_under_overload_answers_all_accepted_requests() -> None:
    """Accepted requests get their responses; others get 429 before and 503 after the signal."""
    with running(stand_in(20), drain_timeout_s=30) as process:
        request = load_client.build_request(SCENE.read_bytes())
        generator = load_generator.Generator(process.port, [request], seed=1)
        load_task = asyncio.create_task(asyncio.to_thread(generator.open_loop, 150, 1.5))
        await asyncio.sleep(0.8)
        process.process.send_signal(signal.SIGTERM)
        await load_task
        code = await asyncio.to_thread(process.wait)
    statuses = Counter(generator.result.status)
    last_response = max(d for d, s in zip(generator.result.done, generator.result.status, strict=True) if s == 200)
    lost = [d for d, s in zip(generator.result.due, generator.result.status, strict=True) if s == load_client.LOST]
    assert code == 0, "".join(process.log)
    assert statuses[200] > 0
    assert set(statuses) <= {200, 429, 503, load_client.LOST}
    assert all(due > last_response - 0.2 for due in lost)  # only requests sent after the last response
    assert not [line for line in process.log if "Traceback" in line]


def test_a_hanging_engine_does_not_prevent_shutdown() -> None:
    with running(stand_in(60_000, warm_ms=0.1), drain_timeout_s=0.2) as process:
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"{process.url}/segment", content=SCENE.read_bytes(), timeout=0.5)
        busy: list[httpx.Response] = []
        waiting = threading.Thread(target=lambda: busy.append(_post(process)))
        waiting.start()
        time.sleep(0.3)
        assert process.stop() == 1
        waiting.join()
    assert [response.status_code for response in busy] == [503], (busy[0].text, process.log[-8:])
    assert not [line for line in process.log if "Traceback" in line]


def _post(process: Process) -> httpx.Response:
    return httpx.post(f"{process.url}/segment", content=SCENE.read_bytes(), timeout=30)


def test_kill_9_and_restart(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    tiny_model.write(folder)
    image = encoded(np.full((48, 64, 3), (255, 0, 0), dtype=np.uint8))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for _ in range(2):
        with running(serve(folder)) as process:
            assert httpx.get(f"{process.url}/healthz/ready").status_code == 200
            assert httpx.post(f"{process.url}/segment", content=image).json()["classes"][0]["name"] == "red"
            threads = [threading.Thread(target=_ignore_reset, args=(process, image), daemon=True) for _ in range(4)]
            for thread in threads:
                thread.start()
            os.kill(process.process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            for thread in threads:
                thread.join(10)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def _ignore_reset(process: Process, image: bytes) -> None:
    try:
        httpx.post(f"{process.url}/segment", content=image)
    except httpx.HTTPError:
        return


def test_sighup_loads_a_changed_model(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    manifest = tiny_model.write(folder)
    with running(serve(folder), model_poll_s=0) as process:
        (folder / "model.json").write_text(manifest.model_copy(update={"version": "2"}).model_dump_json())
        process.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            if httpx.get(f"{process.url}/classes").json()["version"] == "2":
                break
            time.sleep(0.05)
        assert httpx.get(f"{process.url}/healthz/ready").json() == {"status": "ready", "model": "tiny", "version": "2"}
        assert process.stop() == 0


def test_the_load_generator_sends_to_localhost_at_a_given_rate() -> None:
    arguments = [sys.executable, "-m", "benchmarks.server.load_generator", "--help"]
    output = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout  # noqa: S603
    assert "--rate" in output
    assert load_client.HOST == "127.0.0.1"
