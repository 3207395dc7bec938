"""A light load generator in a process of its own: raw sockets, keep-alive, prebuilt requests, only 127.0.0.1.

Open loop: Poisson arrivals that do not care whether the server keeps up; latency counts from the moment a request was
due, so nothing that the generator or the server delays is left out. Closed loop: N clients, one request each at a time.

    python -m benchmarks.loadgen --port 8000 --rate 200 --seconds 10 --body photo.jpg --out result.json
"""

import argparse
import asyncio
import json
import random
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

HOST: Final = "127.0.0.1"
MAX_CONNECTIONS: Final = 2000
LATE_S: Final = 30.0  # how long answers are waited for after the last request
LOST: Final = 0  # instead of a status: the connection ended without an answer


@dataclass(slots=True)
class Result:
    """Parallel lists, a request each. Times in seconds since the start; retry_ms is -1 where none was given."""

    due: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    retry_ms: list[int] = field(default_factory=list)
    hung_up: int = 0
    cpu_s: float = 0.0

    def add(self, due: float, done: float, status: int, retry_ms: int) -> None:
        """Note a finished request."""
        self.due.append(due)
        self.done.append(done)
        self.status.append(status)
        self.retry_ms.append(retry_ms)


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self._answer: asyncio.Future[tuple[int, int]] | None = None
        self._got = bytearray()
        self._needed = -1

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self.transport = transport

    def request(self, data: bytes) -> asyncio.Future[tuple[int, int]]:
        """Send; the future brings (status, Retry-After-Ms or -1)."""
        self._got, self._needed = bytearray(), -1
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Collect one answer."""
        self._got += data
        if self._needed < 0 and (end := self._got.find(b"\r\n\r\n")) >= 0:
            self._needed = end + 4 + _header(self._got[:end], b"content-length", 0)
        if 0 <= self._needed <= len(self._got) and self._answer is not None and not self._answer.done():
            head = bytes(self._got[: self._got.find(b"\r\n\r\n")])
            self._answer.set_result((int(head[9:12]), _header(head, b"retry-after-ms", -1)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits is told."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((LOST, -1))


def _header(head: bytes | bytearray, name: bytes, default: int) -> int:
    at = head.lower().find(b"\r\n" + name + b":")
    if at < 0:
        return default
    return int(head[at + len(name) + 3 :].split(b"\r\n", 1)[0])


class Generator:
    """Sends requests and notes what becomes of them.

    hang_up: the share of clients that leave before their answer, after a random time up to `patience_s`.
    """

    def __init__(self, port: int, requests: Sequence[bytes], seed: int, hang_up: float = 0.0, patience_s: float = 0.05):
        self._port = port
        self._requests = requests
        self._random = random.Random(seed)
        self._hang_up, self._patience_s = hang_up, patience_s
        self._idle: list[Connection] = []
        self._open = 0
        self._sent = 0
        self._began = 0.0
        self.result = Result()

    async def open_loop(self, rate: float, seconds: float) -> None:
        """Poisson arrivals at `rate` a second."""
        self._began = time.monotonic()
        due, pending = 0.0, set[asyncio.Task[int]]()
        while (due := due + self._random.expovariate(rate)) < seconds:
            if (wait_s := self._began + due - time.monotonic()) > 0.0005:
                await asyncio.sleep(wait_s)
            task = asyncio.ensure_future(self._one(due))
            pending.add(task)
            task.add_done_callback(pending.discard)
        if pending:
            await asyncio.wait(pending, timeout=LATE_S)
        for _ in pending:
            self.result.add(0.0, time.monotonic() - self._began, LOST, -1)

    async def closed_loop(self, clients: int, seconds: float) -> None:
        """`clients` that each send the next request when they have their answer; a refused one waits as it was told."""
        self._began = time.monotonic()

        async def client() -> None:
            while (due := time.monotonic() - self._began) < seconds:
                retry_ms = await self._one(due)
                if retry_ms > 0:
                    await asyncio.sleep(retry_ms / 1e3)

        await asyncio.gather(*(client() for _ in range(clients)))

    async def _one(self, due: float) -> int:
        if self._open >= MAX_CONNECTIONS and not self._idle:
            self.result.add(due, time.monotonic() - self._began, LOST, -1)
            return -1
        self._sent += 1
        try:
            connection = await self._connection()
        except OSError:
            self._open -= 1
            self.result.add(due, time.monotonic() - self._began, LOST, -1)
            return -1
        answer = connection.request(self._requests[self._sent % len(self._requests)])
        if self._hang_up and self._random.random() < self._hang_up:
            return await self._leave(connection, answer)
        status, retry_ms = await answer
        self.result.add(due, time.monotonic() - self._began, status, retry_ms)
        self._give_back(connection)
        return retry_ms

    async def _leave(self, connection: Connection, answer: asyncio.Future[tuple[int, int]]) -> int:
        await asyncio.wait({answer}, timeout=self._random.random() * self._patience_s)
        self.result.hung_up += 1
        self._open -= 1
        connection.transport.abort()
        return -1

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                return connection
            self._open -= 1
        self._open += 1
        _, connection = await asyncio.get_running_loop().create_connection(Connection, HOST, self._port)
        return connection

    def _give_back(self, connection: Connection) -> None:
        if connection.transport.is_closing():
            self._open -= 1
        else:
            self._idle.append(connection)


def build_request(body: bytes, path: str = "/segment", accept: str = "image/png", timeout_ms: int = 0) -> bytes:
    """A whole POST."""
    head = [f"POST {path} HTTP/1.1", f"Host: {HOST}", f"Accept: {accept}", "Content-Type: application/octet-stream"]
    head += [f"X-Request-Timeout-Ms: {timeout_ms}"] if timeout_ms else []
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Generate the load that the command line asks for."""
    requests = [build_request(path.read_bytes(), timeout_ms=arguments.timeout_ms) for path in arguments.body]
    generator = Generator(arguments.port, requests, arguments.seed, arguments.hang_up)
    if arguments.rate:
        work = generator.open_loop(arguments.rate, arguments.seconds)
    else:
        work = generator.closed_loop(arguments.clients, arguments.seconds)
    uvloop.run(work)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    generator.result.cpu_s = usage.ru_utime + usage.ru_stime
    return {name: getattr(generator.result, name) for name in Result.__slots__}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.0, help="open loop: requests a second")
    parser.add_argument("--clients", type=int, default=16, help="closed loop, where no rate is given")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--body", type=Path, action="append", required=True, help="a picture; repeat for several")
    parser.add_argument("--timeout-ms", type=int, default=0, help="X-Request-Timeout-Ms")
    parser.add_argument("--hang-up", type=float, default=0.0, help="share of clients that leave early")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.write_text(json.dumps(run(arguments)))


if __name__ == "__main__":
    main()
