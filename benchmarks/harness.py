"""What the server's benchmarks share: a server in a process of its own, watched; a generator in another; a report."""

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
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
SCENE: Final = ROOT / "service" / "web" / "scene.jpg"
_PACKAGES: Final = (
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


class Watched:
    """A server's process, with those that it starts, and what they cost. wait: until it says where it runs."""

    def __init__(self, command: Sequence[str], wait: bool = True, **environment: str) -> None:
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.port = 0
        self.log: list[str] = []
        self.rss_mb: list[tuple[float, float]] = []  # (time.monotonic(), resident megabytes)
        self.others_s: list[tuple[float, float]] = []  # (time.monotonic(), seconds of CPU that all else has taken)
        self._started = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if wait and (not self._started.wait(60) or not self.port):
            self.process.kill()
            raise RuntimeError("the server did not start:\n" + "".join(self.log))
        threading.Thread(target=self._sample, daemon=True).start()

    def close(self) -> None:
        """Kill what still runs, and let go of its pipe."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def cpu_s(self) -> float:
        """Seconds of CPU so far, all threads of all processes."""
        fields = [_read(pid, "stat").rpartition(")")[2].split() for pid in family(self.process.pid)]
        return sum(int(one[11]) + int(one[12]) for one in fields if one) / _TICKS

    def rss(self) -> float:
        """Resident megabytes now, of all processes; what they share is counted once for each."""
        pages = [_read(pid, "statm").split() for pid in family(self.process.pid)]
        return sum(int(one[1]) for one in pages if one) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def peak_rss(self, since: float = 0.0) -> float:
        """The most resident megabytes seen since a moment on time.monotonic()."""
        return max((rss for when, rss in self.rss_mb if when >= since), default=self.rss())

    def _sample(self) -> None:
        while self.process.poll() is None:
            if rss := self.rss():  # 0: it has just ended
                self.rss_mb.append((time.monotonic(), rss))
                self.others_s.append((time.monotonic(), others_cpu_s(self.cpu_s())))
            time.sleep(0.25)

    def _read(self) -> None:
        for line in self.process.stdout or ():
            if match := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(match[1])
                self._started.set()
            if len(self.log) < 10_000:
                self.log.append(line)
        self._started.set()


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    threads = (int(task.name) for task in Path(f"/proc/{pid}/task").glob("*"))  # any may have started some
    children = [int(child) for thread in threads for child in _read(pid, f"task/{thread}/children").split()]
    return [pid, *(one for child in children for one in family(child))]


def _read(pid: int, name: str) -> str:
    """A file of /proc; empty when the process has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (OSError, ProcessLookupError):
        return ""


@contextmanager
def serving(command: Sequence[str], **environment: str) -> Generator[Watched, None, None]:
    """A server on 127.0.0.1, ended on the way out; raises when it does not end with 0."""
    server = Watched(command, ALIGNSEG_LOG="json", **environment)
    try:
        yield server
        server.process.terminate()
        if (code := server.process.wait(60)) != 0:
            raise RuntimeError(f"the server ended with {code}:\n" + "".join(server.log[-20:]))
    finally:
        server.close()


def others_cpu_s(*ours: float) -> float:
    """Seconds of CPU that this machine has spent so far, less `ours`: what grows is other work that disturbs."""
    user, nice, system, _idle, _wait, irq, soft, steal, *_ = map(int, Path("/proc/stat").read_text().split()[1:11])
    return (user + nice + system + irq + soft + steal) / _TICKS - sum(ours)


def free_port() -> int:
    """One that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def shipped() -> list[str]:
    """The command of the server as users start it."""
    return [sys.executable, "-m", "alignseg_serve", "serve", "--port", "0"]


def stand_in(infer_ms: float = 0.3, **options: float) -> list[str]:
    """The command of a server with a stand-in engine."""
    extra = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    return [sys.executable, "-m", "benchmarks.server.fake_engine_server", "--infer-ms", str(infer_ms), *extra]


def load(port: int, **options: object) -> dict[str, Any]:
    """Run the generator in a process of its own; its result."""
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


def machine() -> dict[str, Any]:
    """Where a result comes from."""
    cpu = next(
        (
            ln.partition(":")[2].strip()
            for ln in Path("/proc/cpuinfo").read_text().splitlines()
            if ln.startswith("model name")
        ),
        "?",
    )
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "load_average_after": os.getloadavg()[0],
        "niceness": os.nice(0),  # below zero: measured beside other work, and kept apart from it
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in _PACKAGES},
        "commit": commit.stdout.strip(),
    }


def report(name: str, figures: dict[str, Any]) -> None:
    """Print, and write to benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    print(f"written to {path.relative_to(ROOT)}")
