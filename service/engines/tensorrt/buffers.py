"""Named buffers: each a block of GPU memory, some with pinned host memory beside them."""

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.engines.cuda import check
from service.types import UInt8Array


@dataclass(frozen=True, slots=True)
class _Buffer:
    bytes: int
    device: int
    host: int
    view: UInt8Array | None


class Buffers:
    """Allocated once, sized for the largest batch; freed together."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._buffers: dict[str, _Buffer] = {}

    def on_device(self, name: str, size: int) -> int:
        """GPU memory of `size` bytes. Returns its address. Raises EngineOutOfMemory."""
        address = int(check(self._cuda, self._cuda.cudaMalloc(max(size, 1)), f"allocating {size} bytes for {name}"))
        self._buffers[name] = _Buffer(size, address, 0, None)
        return address

    def pinned(self, name: str, size: int) -> None:
        """GPU memory with as much page-locked host memory, from which copies do not hold up the caller."""
        device = self.on_device(name, size)
        flags = self._cuda.cudaHostAllocDefault
        host = int(check(self._cuda, self._cuda.cudaHostAlloc(max(size, 1), flags), f"pinning {size} bytes for {name}"))
        memory = memoryview((ctypes.c_uint8 * size).from_address(host))
        self._buffers[name] = _Buffer(size, device, host, np.frombuffer(memory.cast("B"), dtype=np.uint8))

    def size(self, name: str) -> int:
        """Bytes allocated."""
        return self._buffers[name].bytes

    def device(self, name: str) -> int:
        """Address of the GPU memory."""
        return self._buffers[name].device

    def host(self, name: str, shape: Sequence[int]) -> UInt8Array:
        """The first bytes of the pinned memory, as an array of this shape; valid until the next batch."""
        view = self._buffers[name].view
        if view is None:
            raise ValueError(f"{name} lies on the GPU alone")
        return view[: math.prod(shape)].reshape(shape)

    def to_device(self, name: str, size: int, stream: Any) -> None:
        """Queue a copy of the first `size` bytes."""
        self._copy(name, size, stream, up=True)

    def to_host(self, name: str, size: int, stream: Any) -> None:
        """Queue a copy of the first `size` bytes."""
        self._copy(name, size, stream, up=False)

    def free(self) -> None:
        """Give everything back. Errors are not raised: the process may be ending because of one."""
        for buffer in self._buffers.values():
            self._cuda.cudaFree(buffer.device)
            if buffer.host:
                self._cuda.cudaFreeHost(buffer.host)
        self._buffers.clear()

    def _copy(self, name: str, size: int, stream: Any, up: bool) -> None:
        buffer, kinds = self._buffers[name], self._cuda.cudaMemcpyKind
        to, source, kind = (
            (buffer.device, buffer.host, kinds.cudaMemcpyHostToDevice)
            if up
            else (buffer.host, buffer.device, kinds.cudaMemcpyDeviceToHost)
        )
        check(self._cuda, self._cuda.cudaMemcpyAsync(to, source, size, kind, stream), f"copying {name}")
