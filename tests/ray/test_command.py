"""The commands `alignseg serve --ray` and `alignseg segment --ray`."""

import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from alignseg_serve import cli
from tests.support import tiny_model
from tests.support.fake_engine import encoded, striped
from tests.support.server_process import running, serve

PNG = encoded(striped(70, 90))


def test_without_ray_the_error_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        "service.telemetry.logs.configure", lambda log: None
    )  # it would keep the stderr of the runner, which is closed
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in [name for name in sys.modules if name.startswith(("service.ray_serve", "alignseg_serve.ray_job"))]:
        monkeypatch.delitem(sys.modules, name)
    for command in (["serve", "--ray"], ["segment", str(tmp_path), "-o", str(tmp_path / "out"), "--ray"]):
        result = CliRunner().invoke(cli.app, command)
        assert result.exit_code == cli.USAGE_ERROR
        # `serve` writes it into its log
        assert "pip install -e '.[ray]'" in " ".join((result.output + caplog.text).split())
        caplog.clear()


def test_options_that_exclude_each_other_are_rejected(tmp_path: Path) -> None:
    for more, text in (
        (["--ray", "--overlay"], "exactly one source"),
        (["--ray", "--masks", "polygons"], "png or rle"),
    ):
        result = CliRunner().invoke(cli.app, ["segment", str(tmp_path), "-o", str(tmp_path / "out"), *more])
        assert result.exit_code == cli.USAGE_ERROR
        assert text in " ".join(result.output.split())


def test_serve_with_ray_responds_and_drains_as_the_single_server(
    ray_cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        admin = listener.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
    tiny_model.write(tmp_path / "model")
    settings = {"engine": "onnxruntime-cpu", "log": "json", "admin_port": admin}  # opened by the ingress
    statuses: list[int] = []
    with running([*serve(tmp_path / "model"), "--ray"], **settings) as process:
        (url,) = (url for url in process.urls if not url.endswith(f":{admin}"))

        def client() -> None:
            with httpx.Client(base_url=url) as http:
                while (status := http.post("/segment", content=PNG).status_code) == 200:
                    statuses.append(status)
                statuses.append(status)

        threads = [threading.Thread(target=client) for _ in range(2)]
        for thread in threads:
            thread.start()
        while len(statuses) < 20 and any(thread.is_alive() for thread in threads):
            threads[0].join(0.01)
        assert _get(f"http://127.0.0.1:{admin}/healthz/ready").json()["status"] == "ready"
        assert 'alignseg_batch_size_count{model="tiny"}' in httpx.get(f"http://127.0.0.1:{admin}/metrics").text
        assert httpx.get(f"{url}/metrics").status_code == 404
        process.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(120)
        assert process.wait() == 0, "".join(process.log)
    records = [json.loads(line[line.index("{") :]) for line in process.log]  # after the name of the process
    assert {"alignseg.server", "alignseg.app", "alignseg.access"} <= {one["logger"] for one in records}
    assert len(statuses) > 20
    assert set(statuses) == {200, 503}, statuses


def _get(url: str) -> httpx.Response:
    for _ in range(6000):
        try:
            return httpx.get(url)
        except httpx.ConnectError:
            time.sleep(0.05)
    raise AssertionError(f"nobody listens at {url}")


def test_segment_with_ray_writes_the_same_masks(
    ray_cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, which is connected to the cluster; the masks equal those made without Ray."""
    images = tmp_path / "in"
    for number in range(5):
        (images / f"{number}" / "a.png").parent.mkdir(parents=True)
        (images / f"{number}" / "a.png").write_bytes(encoded(striped(40 + number, 50)))
    tiny_model.write(tmp_path / "model")
    common = ["--model", str(tmp_path / "model"), "--engine", "onnxruntime-cpu"]
    for out, more in (("local", []), ("ray", ["--ray"])):
        result = CliRunner().invoke(cli.app, ["segment", str(images), "-o", str(tmp_path / out), *common, *more])
        assert result.exit_code == 0, result.output
    assert "5 masks written to" in " ".join(result.output.split())
    for number in range(5):
        expected = (tmp_path / "local" / f"{number}" / "a.png").read_bytes()
        assert (tmp_path / "ray" / "masks" / f"{number}" / "a.png.png").read_bytes() == expected
    again = CliRunner().invoke(
        cli.app, ["segment", str(images), "-o", str(tmp_path / "ray"), *common, "--ray", "--masks", "rle"]
    )
    assert again.exit_code == cli.USAGE_ERROR
    assert "the results of another job (masks: png before, rle now)" in " ".join(again.output.split())


class BusyIngress:
    """Never completes its requests."""

    def __init__(self, on_poll: Callable[[int], None]) -> None:
        self.stop_admitting = self.in_flight = self
        self._on_poll = on_poll
        self._polls = 0

    def remote(self) -> "BusyIngress":
        return self

    def result(self) -> int:
        self._on_poll(self._polls)
        self._polls += 1
        assert self._polls < 1000, "the drain goes on"
        return 3


def test_a_second_sigint_ends_the_drain() -> None:
    from service.ray_serve import run

    def send(poll: int) -> None:
        if poll in {2, 4, 6}:
            signal.raise_signal(signal.SIGTERM if poll == 4 else signal.SIGINT)

    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        signals = run._Signals()
        signals.handle()
        signal.raise_signal(signal.SIGTERM)
        assert signals.stop.is_set()
        assert run._drain(BusyIngress(send), 600, signals.stop_now) == 130
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
