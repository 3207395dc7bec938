"""Clients that send one image after the other, and the responses."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from tests.support.fake_engine import encoded, striped

PNG = encoded(striped(70, 90))
PROBLEM = "application/problem+json"


@dataclass
class Load:
    """statuses and model versions in the order of arrival; failures: responses other than 200, and exceptions."""

    statuses: Counter[int] = field(default_factory=Counter)
    versions: list[str] = field(default_factory=list)
    failures: list[httpx.Response | Exception] = field(default_factory=list)

    @property
    def messages(self) -> list[str]:
        return [f.text if isinstance(f, httpx.Response) else repr(f) for f in self.failures]


@contextmanager
def under_load(url: str, clients: int = 4) -> Generator[Load, None, None]:
    """Run `clients` clients until the context ends; it begins after 20 responses."""
    load, stop = Load(), threading.Event()

    def client() -> None:
        with httpx.Client(base_url=url, timeout=300) as http:
            while not stop.is_set():
                try:
                    response = http.post("/segment?masks=none", content=PNG)
                except httpx.HTTPError as error:
                    load.failures.append(error)
                    continue
                load.statuses[response.status_code] += 1
                if response.status_code == 200:
                    load.versions.append(response.json()["version"])
                else:
                    load.failures.append(response)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: load.statuses.total() > 20)
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)


def until(condition: Callable[[], object], seconds: float = 300) -> None:
    by = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < by, "timed out"
        time.sleep(0.02)
