"""What the load generator sends and records: a request, a connection, the responses."""

import re
import socket
from dataclasses import dataclass, field
from typing import Final

HOST: Final = "127.0.0.1"
LOST: Final = 0  # instead of a status: the connection ended without a response
LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
RETRY_MS: Final = re.compile(rb"\r\nretry-after-ms: *(\d+)", re.IGNORECASE)


@dataclass(slots=True)
class Result:
    """Parallel lists, one entry a request. Times in seconds since the start; retry_ms is -1 without Retry-After-Ms."""

    due: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    retry_ms: list[int] = field(default_factory=list)
    disconnected: int = 0
    cpu_s: float = 0.0

    def add(self, due: float, done: float, status: int, retry_ms: int = -1) -> None:
        """Record a finished request."""
        self.due.append(due)
        self.done.append(done)
        self.status.append(status)
        self.retry_ms.append(retry_ms)


@dataclass(eq=False, slots=True)
class Connection:
    """One keep-alive connection; one request at a time. unsent: not yet sent; received: the response so far."""

    sock: socket.socket
    due: float = 0.0
    busy: bool = False
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    received: bytes = b""
    needed: int = -1
    number: int = 0  # of the request: a disconnect timer of an earlier request must not end a later one


def number_in(pattern: re.Pattern[bytes], head: bytes, default: int) -> int:
    """What `pattern` captures, as a number; `default` where it does not match."""
    match = pattern.search(head)
    return default if match is None else int(match[1])


def build_request(body: bytes, path: str = "/segment", accept: str = "image/png", timeout_ms: int = 0) -> bytes:
    """A whole POST, head and body."""
    head = [f"POST {path} HTTP/1.1", f"Host: {HOST}", f"Accept: {accept}", "Content-Type: application/octet-stream"]
    head += [f"X-Request-Timeout-Ms: {timeout_ms}"] if timeout_ms else []
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body
