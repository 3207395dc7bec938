"""Small versions of the commands in benchmarks/: what must hold at any speed. No timing is asserted here."""

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


def test_at_four_times_the_capacity_all_are_answered_and_some_refused() -> None:
    plan = load.Plan(infer_ms=3.0, max_batch=1, factors=(4.0,), seconds=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "WARM_UP_S", 0.5)
        figures = load.run(plan)
    (overload,) = figures["overload"]
    assert set(overload["statuses"]) <= {"200", "429"}
    assert overload["statuses"]["200"] > 0


def test_mutated_pictures_are_no_fault_of_ours(watched: ServerProcess) -> None:
    figures = fuzz_decoder.run(watched, 150, 2)
    assert figures["failures"] == []
    assert {"200", "400"} <= set(figures["statuses"])


def test_mutations_can_be_made_again() -> None:
    files = fuzz_decoder.seeds()
    assert [fuzz_decoder.mutated(files, i) for i in range(50)] == [fuzz_decoder.mutated(files, i) for i in range(50)]
    assert len({fuzz_decoder.mutated(files, i) for i in range(50)}) > 45


def test_a_storm_of_clients_that_hang_up_leaves_nothing_behind(watched: ServerProcess) -> None:
    figures = client_disconnects.run(watched, 0.6)
    for phase in ("before", "during", "after"):
        assert figures[phase]["still_in_flight"] == 0
        assert figures[phase]["other_statuses"] == []
    assert figures["during"]["disconnected"] > 0
    assert figures["during"]["computed_for_disconnected"] <= figures["during"]["disconnected"]
    assert figures["after"]["computed_for_disconnected"] == 0


def test_a_short_soak(watched: ServerProcess) -> None:
    figures = soak.run(watched, seconds=1.5, step_s=0.5)
    assert set(figures["statuses"]) <= {"200", "429"}
    assert len(figures["steps"]) == 2


def test_who_is_refused_at_the_door_is_told_as_everywhere(tmp_path: Path) -> None:
    """The door answers below ASGI (routes/door.py); a client must not be able to tell."""
    with running(stand_in(300), max_in_flight=1) as process:
        body = SCENE.read_bytes()
        httpx.post(f"{process.url}/segment", content=body)
        busy = threading.Thread(target=httpx.post, args=(f"{process.url}/segment",), kwargs={"content": body})
        busy.start()
        time.sleep(0.15)
        with httpx.Client(base_url=process.url) as client:
            refused = client.post("/segment", content=body, headers={"X-Request-Id": "mine"})
            again = client.post("/segment?a=b", content=b"")  # the connection goes on
            metrics = client.get("/metrics").text
        busy.join()
        with httpx.Client(base_url=process.url) as client:
            assert client.post("/segment", content=body).status_code == 200
        assert process.stop() == 0
    assert (refused.status_code, again.status_code) == (429, 429)
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["x-request-id"] == refused.json()["request_id"] == "mine"
    assert int(refused.headers["retry-after"]) >= 1
    assert 0 < int(refused.headers["retry-after-ms"]) <= 60_000
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert refused.json()["type"] == "urn:alignseg:problem:overloaded"
    assert 'alignseg_requests_rejected_total{reason="overloaded-count"} 2.0' in metrics
    assert 'alignseg_requests_total{route="/segment",status="429"} 2.0' in metrics


@pytest.mark.parametrize("settings", [{}, {"cors_origins": "https://a.example"}], ids=["door", "application"])
def test_a_refusal_comes_before_the_body(settings: dict[str, str]) -> None:
    with running(stand_in(1000), max_in_flight=1, **settings) as process:
        body = SCENE.read_bytes()
        busy = threading.Thread(target=httpx.post, args=(f"{process.url}/segment",), kwargs={"content": body})
        busy.start()
        time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", process.port), timeout=10) as connection:
            connection.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 429 ")
        busy.join()


def test_a_head_without_end_is_cut_off(watched: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", watched.port), timeout=10) as connection:
        connection.sendall(b"GET /classes HTTP/1.1\r\nX: ")
        try:
            for _ in range(200):
                connection.sendall(b"a" * 10_000)
        except (BrokenPipeError, ConnectionResetError):
            return
        assert b" 400 " in connection.recv(4096)


def test_health_and_metrics_on_a_port_of_their_own(tmp_path: Path) -> None:
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


async def test_sigterm_in_full_flight_under_overload() -> None:
    """Whoever was let in is answered; whoever was not is told, by 429 before and 503 after."""
    with running(stand_in(20), drain_timeout_s=30) as process:
        request = load_client.build_request(SCENE.read_bytes())
        generator = load_generator.Generator(process.port, [request], seed=1)
        flying = asyncio.create_task(asyncio.to_thread(generator.open_loop, 150, 1.5))
        await asyncio.sleep(0.8)
        process.process.send_signal(signal.SIGTERM)
        await flying
        code = await asyncio.to_thread(process.wait)
    statuses = Counter(generator.result.status)
    last_answer = max(d for d, s in zip(generator.result.done, generator.result.status, strict=True) if s == 200)
    lost = [d for d, s in zip(generator.result.due, generator.result.status, strict=True) if s == load_client.LOST]
    assert code == 0, "".join(process.log)
    assert statuses[200] > 0
    assert set(statuses) <= {200, 429, 503, load_client.LOST}
    assert all(due > last_answer - 0.2 for due in lost)  # only who came when the house was closed for good
    assert not [line for line in process.log if "Traceback" in line]


def test_an_engine_that_hangs_does_not_keep_the_process_from_ending() -> None:
    with running(stand_in(60_000, warm_ms=0.1), drain_timeout_s=0.2) as process:
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"{process.url}/segment", content=SCENE.read_bytes(), timeout=0.5)
        busy: list[httpx.Response] = []
        waiting = threading.Thread(target=lambda: busy.append(_post(process)))
        waiting.start()
        time.sleep(0.3)
        assert process.stop() == 1
        waiting.join()
    assert [response.status_code for response in busy] == [503]
    assert not [line for line in process.log if "Traceback" in line]


def _post(process: Process) -> httpx.Response:
    return httpx.post(f"{process.url}/segment", content=SCENE.read_bytes(), timeout=30)


def test_kill_9_and_restart(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    tiny_model.write(folder)
    picture = encoded(np.full((48, 64, 3), (255, 0, 0), dtype=np.uint8))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for _ in range(2):
        with running(serve(folder)) as process:
            assert httpx.get(f"{process.url}/healthz/ready").status_code == 200
            assert httpx.post(f"{process.url}/segment", content=picture).json()["classes"][0]["name"] == "red"
            threads = [threading.Thread(target=_ignore_reset, args=(process, picture), daemon=True) for _ in range(4)]
            for thread in threads:
                thread.start()
            os.kill(process.process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            for thread in threads:
                thread.join(10)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def _ignore_reset(process: Process, picture: bytes) -> None:
    try:
        httpx.post(f"{process.url}/segment", content=picture)
    except httpx.HTTPError:
        return


def test_sighup_swaps_a_real_model(tmp_path: Path) -> None:
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


def test_a_port_that_is_taken_is_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [*stand_in(1), "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    assert done.returncode == 3
    assert "can't listen on 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_generator_is_bounded() -> None:
    arguments = [sys.executable, "-m", "benchmarks.server.load_generator", "--help"]
    told = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout  # noqa: S603
    assert "--rate" in told
    assert load_client.HOST == "127.0.0.1"
