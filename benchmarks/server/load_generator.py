"""A light load generator in a process of its own: raw sockets, keep-alive, prebuilt requests, only 127.0.0.1.

Open loop: Poisson arrivals that do not care whether the server keeps up; latency counts from the moment a request was
due, so nothing that the generator or the server delays is left out. Closed loop: N clients, one request each at a time.
No asyncio: at four times a server's capacity that would take more of the cores than the refusals it is to measure.

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
LATE_S: Final = 30.0  # how long answers are waited for after the last request, if not told otherwise


class Generator:
    """Sends requests and notes what becomes of them.

    hang_up: the share of clients that leave before their answer, after a random time up to `patience_s`.
    late_s: how long answers are waited for after the last request; who has none by then is LOST.
    """

    def __init__(
        self,
        port: int,
        requests: Sequence[bytes],
        seed: int,
        hang_up: float = 0.0,
        patience_s: float = 0.05,
        late_s: float = LATE_S,
    ):
        self.result = Result()
        self._port = port
        self._requests = requests
        self._random = random.Random(seed)
        self._hang_up, self._patience_s, self._late_s = hang_up, patience_s, late_s
        self._epoll = select.epoll()
        self._open: dict[int, Connection] = {}
        self._idle: list[Connection] = []
        self._in_flight = 0
        self._sent = 0
        self._began = 0.0
        self._clients_until = 0.0  # closed loop: an answer brings the next request, until then
        self._timers: list[
            tuple[float, int, Connection | None, int]
        ] = []  # a hang-up, or (None) a client's next request
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
        """`clients` that each send the next request when they have their answer; a refused one waits as it was told."""
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
        """Sleep until something happens, and see to it."""
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
                self.result.hung_up += 1
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
        connection.got, connection.needed = b"", -1
        connection.unsent = memoryview(self._requests[self._sent % len(self._requests)])
        if self._hang_up and self._random.random() < self._hang_up:
            when = self._now() + self._random.random() * self._patience_s
            heapq.heappush(self._timers, (when, next(self._order), connection, self._sent))
        self._write(connection)

    def _connect(self) -> Connection | None:
        if len(self._open) >= MAX_CONNECTIONS:
            return None
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.connect((HOST, self._port))  # to 127.0.0.1: the kernel answers at once, or refuses
        except OSError:
            sock.close()
            return None
        sock.setblocking(False)
        connection = self._open[sock.fileno()] = Connection(sock)
        self._epoll.register(sock, select.EPOLLIN)
        return connection

    def _write(self, connection: Connection) -> None:
        waited = bool(connection.unsent) and connection.got == b"" and connection.needed == -2
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
        connection.got = connection.got + data if connection.got else data
        end = connection.got.find(b"\r\n\r\n")
        if end < 0:
            return
        head = connection.got[: end + 2]
        if len(connection.got) < end + 4 + number_in(LENGTH, head, 0):
            return
        self._answered(connection, int(head[9:12]), number_in(RETRY_MS, head, -1))

    def _answered(self, connection: Connection, status: int, retry_ms: int) -> None:
        self.result.add(connection.due, self._now(), status, retry_ms)
        self._in_flight -= 1
        connection.busy = False
        if connection.unsent:  # refused in the middle of its body; the rest is not worth sending
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
        # Reset rather than closed politely: this is how clients vanish, and it leaves no port in TIME_WAIT.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sock.close()


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Generate the load that the command line asks for."""
    requests = [build_request(path.read_bytes(), timeout_ms=arguments.timeout_ms) for path in arguments.body]
    generator = Generator(arguments.port, requests, arguments.seed, arguments.hang_up, late_s=arguments.late)
    if arguments.rate:
        generator.open_loop(arguments.rate, arguments.seconds)
    else:
        generator.closed_loop(arguments.clients, arguments.seconds)
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
    parser.add_argument("--late", type=float, default=LATE_S, help="seconds to wait for the last answers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.write_text(json.dumps(run(arguments)))


if __name__ == "__main__":
    main()
