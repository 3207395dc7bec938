"""Uploads in progress: which are slow, which have stalled, and how a stalled one loses its slot.

A slow upload occupies a slot and its bytes but uses neither engine nor codecs. Counted as active it would look like a
slow engine, so it is counted apart. A stalled upload keeps its slot only until another request needs it: otherwise a
few connections that send nothing could block the server.
"""

from collections.abc import Callable
from itertools import chain
from typing import Final, Protocol

MIN_BYTES_PER_S: Final = 8000  # an upload below this rate stalls (64 kbit/s)
MAX_PAUSE_S: Final = 1.0  # the longest pause before an upload counts as stalled, also before its first byte


class _Owner(Protocol):
    """The AdmissionController, as seen by a permit."""

    clock: Callable[[], float]

    def make_room(self, permit: "Permit", size: int) -> None:
        """Count `size` more bytes for the permit. Raises Overloaded."""
        ...

    def upload_finished(self, permit: "Permit") -> None:
        """The permit's body is complete."""
        ...

    def tensors_changed(self, tiles: int, waiting: int, *, completed: bool = False) -> None:
        """The work of a permit has changed by this much; completed: because one more tensor is."""
        ...

    def released(self, permit: "Permit") -> None:
        """The permit's slot is free."""
        ...


class Permit:
    """One admitted request: a slot and `size` bytes. Released once, when its work ends, not when the client leaves.

    size: counted bytes of the body: as announced or, if more have arrived, those. arrived: bytes received so far.
    entered: when it was admitted, on the clock.
    stalls_at: when the upload counts as stalled unless more bytes arrive. Each byte postpones it by the time that the
    byte takes at MIN_BYTES_PER_S, at most to MAX_PAUSE_S from now, so an occasional byte does not keep the slot.
    preempted: whether another request got the slot. on_preempted: called when that happens.
    tensors: of the image in progress, not yet computed; 1 until it is decoded. waiting: further images of the request.
    """

    def __init__(self, owner: _Owner, size: int, now: float, tensors: int = 1) -> None:
        self.size = size
        self.tensors = tensors
        self.waiting = 0
        self.arrived = 0
        self.entered = now
        self.stalls_at = now + MAX_PAUSE_S
        self.on_preempted: Callable[[], object] = lambda: None
        self.preempted = False
        self._owner: _Owner | None = owner

    def received(self, size: int) -> None:
        """Record that `size` more bytes of the body arrived. Raises Overloaded if there is no room for them."""
        if self._owner is not None:
            now = self._owner.clock()
            self.arrived += size
            if self.arrived > self.size:
                self._owner.make_room(self, self.arrived - self.size)
            self.stalls_at = min(max(self.stalls_at, now) + size / MIN_BYTES_PER_S, now + MAX_PAUSE_S)

    def body_read(self) -> None:
        """Record that the upload is complete: from now on the request is active."""
        if self._owner is not None:
            self._owner.upload_finished(self)

    def expect_images(self, count: int) -> None:
        """Record that the request has `count` images; `start_image` follows for each."""
        self._change(0, count)

    def start_image(self, request_permit: "Permit") -> None:
        """Take one of the images that wait under the request's first permit."""
        request_permit._change(request_permit.tensors, request_permit.waiting - 1)
        self._change(1, self.waiting)

    def decoded(self, tensors: int) -> None:
        """Record how many tensors the image has."""
        self._change(tensors, self.waiting)

    def tile_computed(self) -> None:
        """Record that a tile has been computed. The last one counts when the whole image is done."""
        if self.tensors > 1:
            self._change(self.tensors - 1, self.waiting, completed=True)

    def image_done(self) -> None:
        """Record the end of the work on an image. A request's only image ends with `release`."""
        self._change(0, self.waiting, completed=self.tensors > 0)

    def preempt(self) -> None:
        """Free the slot of a stalled upload for another request."""
        self.preempted = True
        self.release()
        self.on_preempted()

    def release(self, *_: object) -> None:
        """Free the slot. Idempotent. Ignores arguments, so that it can be a done-callback."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.released(self)

    def _change(self, tensors: int, waiting: int, *, completed: bool = False) -> None:
        if self._owner is not None:
            self._owner.tensors_changed(tensors - self.tensors, waiting - self.waiting, completed=completed)
        self.tensors, self.waiting = tensors, waiting


class Uploads:
    """Permits whose body is not complete. Used on the event loop only, so it needs no lock."""

    def __init__(self) -> None:
        self._recent: dict[Permit, None] = {}  # in order of arrival
        self._slow: set[Permit] = set()

    @property
    def slow(self) -> int:
        """The number of uploads that were marked as slow."""
        return len(self._slow)

    def add(self, permit: Permit) -> None:
        """Add a new upload."""
        self._recent[permit] = None

    def is_slow(self, permit: Permit) -> bool:
        """Return whether the upload was marked as slow."""
        return permit in self._slow

    def discard(self, permit: Permit) -> bool:
        """Remove an upload; return False if its body was complete."""
        if permit in self._recent:
            del self._recent[permit]
        elif permit in self._slow:
            self._slow.remove(permit)
        else:
            return False
        return True

    def mark_slow(self, now: float, after_s: float) -> None:
        """Mark the uploads that began more than `after_s` seconds ago as slow."""
        while self._recent and now - (oldest := next(iter(self._recent))).entered > after_s:
            del self._recent[oldest]
            self._slow.add(oldest)

    def stalled(self, now: float) -> list[Permit]:
        """Return the stalled uploads, the one that stalled first at the front."""
        uploads = chain(self._slow, self._recent)
        return sorted((permit for permit in uploads if permit.stalls_at < now), key=lambda permit: permit.stalls_at)
