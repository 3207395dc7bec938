"""Clients that send one picture after the other, and what they got."""

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
    """statuses, and versions of the model in the order in which they came; failures: what was no 200."""

    statuses: Counter[int] = field(default_factory=Counter)
    versions: list[str] = field(default_factory=list)
    failures: list[httpx.Response | Exception] = field(default_factory=list)

    @property
    def told(self) -> list[str]:
        return [one.text if isinstance(one, httpx.Response) else repr(one) for one in self.failures]


@contextmanager
def under_load(url: str, clients: int = 4) -> Generator[Load, None, None]:
    """While inside, so many clients ask; it begins once 20 answers have come."""
    found, stop = Load(), threading.Event()

    def client() -> None:
        with httpx.Client(base_url=url, timeout=60) as http:
            while not stop.is_set():
                try:
                    answer = http.post("/segment?masks=none", content=PNG)
                except httpx.HTTPError as error:
                    found.failures.append(error)
                    continue
                found.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    found.versions.append(answer.json()["version"])
                else:
                    found.failures.append(answer)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: found.statuses.total() > 20)
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def until(true: Callable[[], object], seconds: float = 60) -> None:
    by = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < by, "it never came true"
        time.sleep(0.02)
