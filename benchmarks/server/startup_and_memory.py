"""Start and memory of the shipped server: seconds until it is ready, resident megabytes at rest and under load.

    python -m benchmarks.server.startup_and_memory

Load: 64 clients in a closed loop with images of 480x360, then four times the capacity.
"""

import argparse
import time
import urllib.error
import urllib.request
from statistics import median
from typing import Any, Final

from benchmarks.harness import ServerProcess, free_port, load, other_cpu_s, report, serving, shipped
from benchmarks.server.overload import capacity

READY_WITHIN_S: Final = 3.0
REST_MB, LOADED_MB = 400, 800
CLIENTS: Final = 64
FACTOR: Final = 4.0


def start_s() -> float:
    """Seconds from the command to the first 200 of /healthz/ready."""
    port, began = free_port(), time.monotonic()
    command = [*shipped()[:-1], str(port)]
    server = ServerProcess(command, wait=False, ALIGNSEG_LOG="json")
    try:
        while not _is_ready(port):
            time.sleep(0.01)
            if time.monotonic() - began > 60:
                raise RuntimeError("not ready within a minute:\n" + "".join(server.log))
        return time.monotonic() - began
    finally:
        server.close()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz/ready", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def memory(seconds: float) -> dict[str, float]:
    """Resident megabytes of the server's process."""
    with serving(shipped()) as server:
        time.sleep(2.0)
        rest_mb = server.rss()
        load(server.port, clients=CLIENTS, seconds=seconds)
        responses_per_s = capacity(server, seconds / 2)["responses_per_s"]
        load(server.port, rate=round(FACTOR * responses_per_s, 1), seconds=seconds)
        peak_mb = server.peak_rss()
        time.sleep(2.0)
        results = {"at_rest_mb": rest_mb, "peak_under_load_mb": peak_mb, "at_rest_afterwards_mb": server.rss()}
        return {name: round(mb, 1) for name, mb in results.items()}


def run(starts: int, seconds: float) -> dict[str, Any]:
    """All values, and whether each is within its bound."""
    began, other_s = time.monotonic(), other_cpu_s()
    times = [start_s() for _ in range(starts)]
    memory_mb = memory(seconds)
    return {
        "start_to_ready_s": {"median": round(median(times), 2), "each": [round(s, 2) for s in times]},
        **memory_mb,
        "within": {
            f"start_to_ready_{READY_WITHIN_S:g}_s": median(times) <= READY_WITHIN_S,
            f"at_rest_{REST_MB}_mb": memory_mb["at_rest_mb"] <= REST_MB,
            f"under_load_{LOADED_MB}_mb": memory_mb["peak_under_load_mb"] <= LOADED_MB,
        },
        "machine_cpu_cores": round((other_cpu_s() - other_s) / (time.monotonic() - began), 2),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    options = parser.parse_args()
    report("startup-and-memory", run(options.starts, options.seconds))


if __name__ == "__main__":
    main()
