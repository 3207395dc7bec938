"""Shared by all benchmarks: a server in its own process, watched; a load generator in another; the report."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
SCENE: Final = ROOT / "service" / "web" / "scene.jpg"
SERVER_PACKAGES: Final = (
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "pillow",
    "simplejpeg",
    "zlib-ng",
    "numpy",
    "pydantic",
)
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class ServerProcess:
    """A server's process and its children, with what they cost. wait: until the server logs its address.

    Raises RuntimeError with the log when the server does not start within a minute.
    """

    def __init__(self, command: Sequence[str], wait: bool = True, **environment: str) -> None:
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.port = 0
        self.log: list[str] = []
        self.rss_mb: list[tuple[float, float]] = []  # (time.monotonic(), resident megabytes)
        self.other_s: list[tuple[float, float]] = []  # (time.monotonic(), CPU seconds of all other processes)
        self._started = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if wait and (not self._started.wait(60) or not self.port):
            self.process.kill()
            raise RuntimeError("the server did not start:\n" + "".join(self.log))
        threading.Thread(target=self._sample, daemon=True).start()

    def close(self) -> None:
        """Kill all processes that still run, and close the pipe."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def cpu_s(self) -> float:
        """CPU seconds so far, of all threads of all processes."""
        fields = [_read(pid, "stat").rpartition(")")[2].split() for pid in process_tree(self.process.pid)]
        return sum(int(one[11]) + int(one[12]) for one in fields if one) / _TICKS

    def rss(self) -> float:
        """Resident megabytes now, of all processes; shared pages count once for each."""
        pages = [_read(pid, "statm").split() for pid in process_tree(self.process.pid)]
        return sum(int(one[1]) for one in pages if one) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def peak_rss(self, since: float = 0.0) -> float:
        """Largest sample of resident megabytes since a time on time.monotonic()."""
        return max((rss for when, rss in self.rss_mb if when >= since), default=self.rss())

    def _sample(self) -> None:
        while self.process.poll() is None:
            if rss := self.rss():  # 0: it has just ended
                self.rss_mb.append((time.monotonic(), rss))
                self.other_s.append((time.monotonic(), other_cpu_s(self.cpu_s())))
            time.sleep(0.25)

    def _read(self) -> None:
        for line in self.process.stdout or ():
            if match := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(match[1])
                self._started.set()
            if len(self.log) < 10_000:
                self.log.append(line)
        self._started.set()


def process_tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    threads = (int(task.name) for task in Path(f"/proc/{pid}/task").glob("*"))  # each may have children
    children = [int(child) for thread in threads for child in _read(pid, f"task/{thread}/children").split()]
    return [pid, *(one for child in children for one in process_tree(child))]


def _read(pid: int, name: str) -> str:
    """A file of /proc; empty when the process has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (OSError, ProcessLookupError):
        return ""


@contextmanager
def serving(command: Sequence[str], **environment: str) -> Generator[ServerProcess, None, None]:
    """Run a server on 127.0.0.1 and end it with SIGTERM. Raises RuntimeError when it does not exit with 0."""
    server = ServerProcess(command, ALIGNSEG_LOG="json", **environment)
    try:
        yield server
        server.process.terminate()
        if (code := server.process.wait(60)) != 0:
            raise RuntimeError(f"the server exited with {code}:\n" + "".join(server.log[-20:]))
    finally:
        server.close()


def other_cpu_s(*ours: float) -> float:
    """CPU seconds of this machine so far, less `ours`: its growth is other work that disturbs a measurement."""
    user, nice, system, _idle, _wait, irq, soft, steal, *_ = map(int, Path("/proc/stat").read_text().split()[1:11])
    return (user + nice + system + irq + soft + steal) / _TICKS - sum(ours)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def shipped() -> list[str]:
    """The command of the server as users start it."""
    return [sys.executable, "-m", "alignseg_serve", "serve", "--port", "0"]


def fake_engine_server(infer_ms: float = 0.3, **options: float) -> list[str]:
    """The command of a server whose engine only waits. options: of benchmarks.server.fake_engine_server."""
    extra = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    return [sys.executable, "-m", "benchmarks.server.fake_engine_server", "--infer-ms", str(infer_ms), *extra]


def load(port: int, **options: object) -> dict[str, Any]:
    """Run benchmarks.server.load_generator in its own process and return its result."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        options = {"port": port, "body": SCENE, "out": out, **options}
        arguments = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        subprocess.run([sys.executable, "-m", "benchmarks.server.load_generator", *arguments], cwd=ROOT, check=True)
        result: dict[str, Any] = json.loads(out.read_text())
        return result


def percentiles(values: Sequence[float], points: Sequence[float] = (50, 95, 99)) -> dict[str, float]:
    """E.g. {"p50": 3.1}; empty for no values."""
    ordered = sorted(values)
    return (
        {f"p{point:g}": round(ordered[min(len(ordered) - 1, int(len(ordered) * point / 100))], 3) for point in points}
        if ordered
        else {}
    )


def machine(packages: Sequence[str] = SERVER_PACKAGES) -> dict[str, Any]:
    """Describe the machine and the versions of `packages`; None for one that is not installed."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "load_average_after": os.getloadavg()[0],
        "niceness": os.nice(0),  # below zero: measured beside other work, and ahead of it
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in packages},
        "commit": commit.stdout.strip(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def report(name: str, results: dict[str, Any]) -> None:
    """Print the results, and write them to benchmarks/results/NAME.json with the machine."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **results}, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    print(f"written to {path.relative_to(ROOT)}")
