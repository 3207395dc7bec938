"""A light load generator in a process of its own: raw sockets, keep-alive, prebuilt requests, only 127.0.0.1.

Open loop: Poisson arrivals, whether or not the server keeps up. Latency counts from the moment a request was due, so it
includes every delay of the generator and the server. Closed loop: N clients, one request each at a time. No asyncio: at
four times a server's capacity it would use more CPU than the rejections that are to be measured.

    python -m benchmarks.server.load_generator --port 8000 --rate 200 --seconds 10 --body photo.jpg --out result.json
"""

import argparse
import heapq
import json
import random
import resource
import select
import socket
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

from benchmarks.server.load_client import HOST, LENGTH, LOST, RETRY_MS, Connection, Result, build_request, number_in

MAX_CONNECTIONS: Final = 2000
LATE_S: Final = 30.0  # how long responses are waited for after the last request, by default


class Generator:
    """Sends requests and records how each ends.

    disconnect: share of requests whose client leaves before the response, after a random time up to `patience_s`.
    late_s: how long responses are waited for after the last request; a request without one by then is LOST.
    """

    def __init__(
        self, port: int, requests: Sequence[bytes], seed: int, disconnect: float = 0.0, *,
        patience_s: float = 0.05, late_s: float = LATE_S,
    ):  # fmt: skip
        self.result = Result()
        self._port = port
        self._requests = requests
        self._random = random.Random(seed)
        self._disconnect, self._patience_s, self._late_s = disconnect, patience_s, late_s
        self._epoll = select.epoll()
        self._open: dict[int, Connection] = {}
        self._idle: list[Connection] = []
        self._in_flight = 0
        self._sent = 0
        self._began = 0.0
        self._clients_until = 0.0  # closed loop: until then a response triggers the next request
        # (when, order, connection to end, number of its request); without a connection: a client's next request
        self._timers: list[tuple[float, int, Connection | None, int]] = []
        self._order = count()

    def open_loop(self, rate: float, seconds: float) -> None:
        """Poisson arrivals at `rate` a second."""
        self._began = time.monotonic()
        due = self._random.expovariate(rate)
        while due < seconds:
            now = self._now()
            while due <= now and due < seconds:
                self._start(due)
                due += self._random.expovariate(rate)
            self._turn(due - now)
        self._finish()

    def closed_loop(self, clients: int, seconds: float) -> None:
        """`clients` that each send the next request after a response, or after Retry-After-Ms."""
        self._began, self._clients_until = time.monotonic(), seconds
        for _ in range(clients):
            self._start(self._now())
        while self._now() < seconds:
            self._turn(0.05)
        self._finish()

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _finish(self) -> None:
        self._clients_until, last = 0.0, self._now() + self._late_s
        while self._in_flight and self._now() < last:
            self._turn(0.05)
        for connection in list(self._open.values()):
            if connection.busy:
                self.result.add(connection.due, self._now(), LOST)
            self._end(connection)
        self._epoll.close()

    def _turn(self, wait_s: float) -> None:
        """Wait for socket events or timers, and handle them."""
        if self._timers:
            wait_s = min(wait_s, self._timers[0][0] - self._now())
        for number, event in self._epoll.poll(max(0.0, wait_s)):
            connection = self._open.get(number)
            if connection is None:
                continue
            if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._read(connection)
            elif event & select.EPOLLOUT:
                self._write(connection)
        while self._timers and self._timers[0][0] <= self._now():
            _, _, connection, number = heapq.heappop(self._timers)
            if connection is None:
                self._next_of_client()
            elif connection.busy and connection.number == number:
                self.result.disconnected += 1
                self._end(connection)
                self._next_of_client()

    def _start(self, due: float) -> None:
        connection = self._idle.pop() if self._idle else self._connect()
        if connection is None:
            self.result.add(due, self._now(), LOST)
            return
        self._sent += 1
        self._in_flight += 1
        connection.due, connection.busy, connection.number = due, True, self._sent
        connection.received, connection.needed = b"", -1
        connection.unsent = memoryview(self._requests[self._sent % len(self._requests)])
        if self._disconnect and self._random.random() < self._disconnect:
            when = self._now() + self._random.random() * self._patience_s
            heapq.heappush(self._timers, (when, next(self._order), connection, self._sent))
        self._write(connection)

    def _connect(self) -> Connection | None:
        if len(self._open) >= MAX_CONNECTIONS:
            return None
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.connect((HOST, self._port))  # to 127.0.0.1: the kernel accepts or refuses at once
        except OSError:
            sock.close()
            return None
        sock.setblocking(False)
        connection = self._open[sock.fileno()] = Connection(sock)
        self._epoll.register(sock, select.EPOLLIN)
        return connection

    def _write(self, connection: Connection) -> None:
        waited = bool(connection.unsent) and connection.received == b"" and connection.needed == -2
        try:
            connection.unsent = connection.unsent[connection.sock.send(connection.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._lost(connection)
            return
        if connection.unsent:
            connection.needed = -2
            self._epoll.modify(connection.sock, select.EPOLLIN | select.EPOLLOUT)
        elif waited:
            connection.needed = -1
            self._epoll.modify(connection.sock, select.EPOLLIN)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(262_144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or not connection.busy:
            self._lost(connection)
            return
        connection.received = connection.received + data if connection.received else data
        end = connection.received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = connection.received[: end + 2]
        if len(connection.received) < end + 4 + number_in(LENGTH, head, 0):
            return
        self._responded(connection, int(head[9:12]), number_in(RETRY_MS, head, -1))

    def _responded(self, connection: Connection, status: int, retry_ms: int) -> None:
        self.result.add(connection.due, self._now(), status, retry_ms)
        self._in_flight -= 1
        connection.busy = False
        if connection.unsent:  # rejected in the middle of its body: the rest is not sent
            self._end(connection)
        else:
            self._idle.append(connection)
        if retry_ms > 0 and self._clients_until:
            heapq.heappush(self._timers, (self._now() + retry_ms / 1e3, next(self._order), None, 0))
        else:
            self._next_of_client()

    def _next_of_client(self) -> None:
        if (now := self._now()) < self._clients_until:
            self._start(now)

    def _lost(self, connection: Connection) -> None:
        was_busy = connection.busy
        if was_busy:
            self.result.add(connection.due, self._now(), LOST)
        self._end(connection)
        if was_busy:
            self._next_of_client()

    def _end(self, connection: Connection) -> None:
        self._in_flight -= connection.busy
        connection.busy = False
        if connection in self._idle:
            self._idle.remove(connection)
        del self._open[connection.sock.fileno()]
        # Reset instead of an orderly close: that is how clients disappear, and it leaves no port in TIME_WAIT.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sock.close()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Generate the load that the command line describes."""
    bodies = [path.read_bytes() for path in options.body]
    requests = [build_request(body, accept=options.accept, timeout_ms=options.timeout_ms) for body in bodies]
    generator = Generator(options.port, requests, options.seed, options.disconnect, late_s=options.late)
    if options.rate:
        generator.open_loop(options.rate, options.seconds)
    else:
        generator.closed_loop(options.clients, options.seconds)
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
    parser.add_argument("--body", type=Path, action="append", required=True, help="an image; repeat for several")
    parser.add_argument("--accept", default="image/png", help="media type of the responses")
    parser.add_argument("--timeout-ms", type=int, default=0, help="X-Request-Timeout-Ms")
    parser.add_argument("--disconnect", type=float, default=0.0, help="share of requests whose client leaves early")
    parser.add_argument("--late", type=float, default=LATE_S, help="seconds to wait for the last responses")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.write_text(json.dumps(run(options)))


if __name__ == "__main__":
    main()
