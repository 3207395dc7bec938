"""Named blocks of GPU memory, some with a block of pinned host memory to copy from and to."""

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
    """Allocated once for the largest batch, and freed together."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._buffers: dict[str, _Buffer] = {}

    def on_device(self, name: str, size: int) -> int:
        """Allocate `size` bytes of GPU memory. Returns the address. Raises EngineOutOfMemory."""
        address = int(check(self._cuda, self._cuda.cudaMalloc(max(size, 1)), f"allocating {size} bytes for {name}"))
        self._buffers[name] = _Buffer(size, address, 0, None)
        return address

    def pinned(self, name: str, size: int) -> None:
        """Allocate `size` bytes of GPU memory and as many of page-locked host memory, for asynchronous copies."""
        device = self.on_device(name, size)
        flags = self._cuda.cudaHostAllocDefault
        host = int(check(self._cuda, self._cuda.cudaHostAlloc(max(size, 1), flags), f"pinning {size} bytes for {name}"))
        memory = memoryview((ctypes.c_uint8 * size).from_address(host))
        self._buffers[name] = _Buffer(size, device, host, np.frombuffer(memory.cast("B"), dtype=np.uint8))

    def size(self, name: str) -> int:
        """Size in bytes."""
        return self._buffers[name].bytes

    def device(self, name: str) -> int:
        """Address in GPU memory."""
        return self._buffers[name].device

    def host(self, name: str, shape: Sequence[int]) -> UInt8Array:
        """The first bytes of the pinned memory as an array of this shape. The next batch overwrites them."""
        view = self._buffers[name].view
        if view is None:
            raise ValueError(f"buffer {name} has no pinned host memory; allocate it with pinned()")
        return view[: math.prod(shape)].reshape(shape)

    def to_device(self, name: str, size: int, stream: Any) -> None:
        """Queue a copy of the first `size` bytes from the pinned memory to the GPU."""
        self._copy(name, size, stream, to_gpu=True)

    def to_host(self, name: str, size: int, stream: Any) -> None:
        """Queue a copy of the first `size` bytes from the GPU to the pinned memory."""
        self._copy(name, size, stream, to_gpu=False)

    def free(self) -> None:
        """Free all memory. Raises no errors: the process may be ending because of one."""
        for buffer in self._buffers.values():
            self._cuda.cudaFree(buffer.device)
            if buffer.host:
                self._cuda.cudaFreeHost(buffer.host)
        self._buffers.clear()

    def _copy(self, name: str, size: int, stream: Any, to_gpu: bool) -> None:
        buffer, kinds = self._buffers[name], self._cuda.cudaMemcpyKind
        target, source, kind = (
            (buffer.device, buffer.host, kinds.cudaMemcpyHostToDevice)
            if to_gpu
            else (buffer.host, buffer.device, kinds.cudaMemcpyDeviceToHost)
        )
        check(self._cuda, self._cuda.cudaMemcpyAsync(target, source, size, kind, stream), f"copying {name}")
