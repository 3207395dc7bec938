"""A server in a separate process, for tests."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).resolve().parents[2]


class Process:
    """A server on a free port. settings: ALIGNSEG_* by their names in lower case."""

    def __init__(self, command: Sequence[str], **settings: object) -> None:
        environment = {**os.environ, **{f"ALIGNSEG_{k.upper()}": str(v) for k, v in settings.items()}}
        self.process = subprocess.Popen(  # noqa: S603
            command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True
        )
        self.log: list[str] = []
        self.urls: list[str] = []
        self._running = threading.Event()
        self._ports = 2 if "admin_port" in settings else 1
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._running.wait(300), "".join(self.log)
        assert self.urls, "".join(self.log)

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if match := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
                self.urls.append(match[1])
                if len(self.urls) == self._ports:
                    self._running.set()
        self._running.set()

    def wait_until_in_flight(self, count: int) -> None:
        """Returns once the server has admitted this many requests that are not answered yet."""
        deadline = time.monotonic() + 300
        with httpx.Client(base_url=self.url) as client:
            while f"\nalignseg_in_flight {count}.0\n" not in client.get("/metrics").text:
                assert time.monotonic() < deadline, f"{count} requests were not admitted within 300 s"
                time.sleep(0.01)

    def stop(self, sig: int = signal.SIGTERM) -> int:
        self.process.send_signal(sig)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(120)
        self._reader.join(120)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@contextmanager
def running(command: Sequence[str], **settings: object) -> Generator[Process, None, None]:
    """Yields a running server; kills it at the end if it still runs."""
    process = Process(command, **settings)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
        process.wait()


def wait_for(address: str) -> None:
    """Returns once a GET of this address gets 200."""
    for _ in range(2000):
        try:
            if httpx.get(address).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{address} did not answer")


def serve(model: Path) -> list[str]:
    """Command of `alignseg serve` with a model folder."""
    return [sys.executable, "-m", "alignseg_serve", "serve", "--model", str(model), "--port", "0"]


def stand_in(infer_ms: float, max_batch: int = 1, warm_ms: float | None = None) -> list[str]:
    """Command of a server with a fake engine. warm_ms: duration of the first call, the warm-up; by default infer_ms."""
    options = ["--infer-ms", str(infer_ms), "--max-batch", str(max_batch)]
    options += [] if warm_ms is None else ["--warm-ms", str(warm_ms)]
    return [sys.executable, "-m", "benchmarks.server.fake_engine_server", *options]
