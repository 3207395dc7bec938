"""Decides which requests are admitted: by count, by bytes, and by the time that the admitted work will take.

As long as all requests fit, all are admitted, also a burst. Once one has to be rejected, there is more work than
capacity, and a long queue would only delay every response. From then on, until no request has been rejected for a
second, only as many are admitted as are completed within `overload_latency_s`, but never fewer than keep every stage
busy. So goodput stays near capacity at any overload.

Slots are counted in requests, work in tensors: an image is one, with tile=true one per tile. The tiles of all requests
take turns with other images (`Limits.concurrent_tiles`), so a new request waits for few of them, while a slot is free
only after all. Used on the event loop only, so it needs no lock.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from service.admission.stalled_uploads import Permit, Uploads
from service.admission.throughput import ThroughputMeter
from service.errors import NotReady, Overloaded, RequestError

CLOSED: Final = "closed"
_OVERLOAD_ENDS_S: Final = 1.0  # after the last rejection
_RETRY: Final = "Retry after the delay in Retry-After."


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the AdmissionController.

    count: requests in flight, uploads included. bytes: announced bytes of all their bodies.
    overload_latency_s: seconds that the admitted work may take while other requests are rejected.
    min_active: the limit on the work of active requests, in tensors, never falls below this; it keeps every stage busy.
    concurrent_tiles: tiles of all requests that are computed or queued at one time.
    """

    count: int
    bytes: int = 2**63
    overload_latency_s: float = 0.05
    min_active: int = 1
    concurrent_tiles: int = 2


class AdmissionController:
    """Counts admitted requests and their tensors, and measures how fast these are completed.

    in_flight: admitted requests. bytes: announced bytes of their bodies.
    closed_because: why no request is admitted any more; None while some are.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.in_flight = 0
        self.bytes = 0
        self.closed_because: str | None = None
        self.clock = clock
        self._throughput = ThroughputMeter(clock)
        self._uploads = Uploads()
        self._tiles = 0  # of all permits: the tensors of the image in progress, less one
        self._waiting = 0  # of all permits: images of requests with several that have not begun
        self._last_rejection = float("-inf")

    @property
    def active(self) -> int:
        """Requests that use the engine or the codecs, or soon will: all but slow uploads."""
        return self.in_flight - self._uploads.slow

    @property
    def tensors(self) -> int:
        """Tensors of all active requests that are not completed; an image that is not decoded counts as one."""
        return self.active + self._tiles + self._waiting

    @property
    def tensors_ahead(self) -> int:
        """Tensors that are completed before those of a new request."""
        return self.active + min(self._tiles, self.limits.concurrent_tiles)

    @property
    def may_reject(self) -> bool:
        """False when no request can be rejected now, so that asking is unnecessary."""
        return self.in_flight > 0 or self.closed_because is not None

    def acquire(self, size: int = 0, deadline: float = float("inf"), tensors: int = 1) -> Permit:
        """Admit a request, if necessary into the slot of a stalled upload.

        size: announced bytes of the body. deadline: on the clock. tensors: 0 for another slot of a request whose images
        are counted already. Raises Overloaded, or NotReady when closed.
        """
        if (error := self.rejection(size, deadline)) is not None:
            raise error
        for stalled in self._find_room(size, self.clock())[1]:
            stalled.preempt()
        permit = Permit(self, size, self.clock(), tensors)
        self._throughput.started(self.active)
        self._uploads.add(permit)
        self.in_flight += 1
        self.bytes += size
        self._tiles += tensors - 1
        return permit

    def rejection(self, size: int = 0, deadline: float = float("inf")) -> RequestError | None:
        """Return the error for a request that cannot be admitted now, or None. Admits nothing."""
        if (reason := self.rejection_reason(size)) is not None:
            return self.rejection_error(reason, size)
        if (message := self._misses_deadline(deadline, self.clock())) is not None:
            return Overloaded(message, self._seconds_ahead(), "deadline")
        return None

    def rejection_reason(self, size: int) -> str | None:
        """Return CLOSED or the exceeded limit (see Overloaded.what); None if the request fits.

        Cheap: called for every request during overload.
        """
        if self.closed_because is not None:
            return CLOSED
        now = self.clock()
        reason = self._exceeded_limit(size, now)
        if reason is not None:  # a rejection for a short deadline is not counted: it does not indicate overload
            self._last_rejection = now
        return reason

    def rejection_error(self, reason: str, size: int) -> RequestError:
        """Return the error for what `rejection_reason` returned for a request of `size` bytes."""
        if reason == CLOSED:
            return NotReady(f"Not accepting requests: {self.closed_because}. Send the request to another replica.")
        # The queue is shorter soon; a slot is free, at the latest, when all requests are completed.
        retry_s = self._seconds_ahead() if reason == "time" else self.estimated_drain_s()
        return Overloaded(f"Server overloaded: {self._explain(reason, size)} {_RETRY}", retry_s, reason)

    def close(self, because: str) -> None:
        """Admit no more requests."""
        self.closed_because = because

    def preempt_stalled(self) -> None:
        """Preempt every stalled upload: a draining server does not wait for them."""
        for stalled in self._uploads.stalled(self.clock()):
            stalled.preempt()

    def estimated_drain_s(self) -> float:
        """Return the estimated seconds until all active requests are completed, from the measured throughput."""
        return self._throughput.seconds_for(self.tensors)

    def limit(self) -> int:
        """Return how many active requests are admitted at the moment."""
        count = self.limits.count
        return min(count, self._tensor_limit()) if self._is_overloaded(self.clock()) else count

    def make_room(self, permit: Permit, size: int) -> None:
        """Called by the permit of a body without Content-Length. Raises Overloaded, unless it is the only one."""
        others = iter(stalled for stalled in self._uploads.stalled(self.clock()) if stalled is not permit)
        while self.in_flight > 1 and self.bytes + size > self.limits.bytes:
            if (stalled := next(others, None)) is None:
                raise self.rejection_error("bytes", size)
            stalled.preempt()
        permit.size += size
        self.bytes += size

    def upload_finished(self, permit: Permit) -> None:
        """Called by the permit."""
        if self._uploads.is_slow(permit):
            self._throughput.started(self.active)
        self._uploads.discard(permit)

    def tensors_changed(self, tiles: int, waiting: int, *, completed: bool = False) -> None:
        """Called by the permit."""
        self._tiles += tiles
        self._waiting += waiting
        if completed:
            self._throughput.completed()
        elif tiles > 0:
            self._throughput.more_queued()

    def released(self, permit: Permit) -> None:
        """Called by the permit."""
        if not self._uploads.discard(permit) and permit.tensors:  # else an upload that never became work
            self._throughput.completed()
        self._tiles -= permit.tensors - 1
        self._waiting -= permit.waiting
        self.in_flight -= 1
        self.bytes -= permit.size

    def _exceeded_limit(self, size: int, now: float) -> str | None:
        if (reason := self._find_room(size, now)[0]) is not None:
            return reason
        self._uploads.mark_slow(now, self.limits.overload_latency_s)
        return "time" if self._is_overloaded(now) and self.tensors_ahead >= self._tensor_limit() else None

    def _tensor_limit(self) -> int:
        limits = self.limits
        return max(limits.min_active, int(limits.overload_latency_s * self._throughput.per_second))

    def _is_overloaded(self, now: float) -> bool:
        return now - self._last_rejection <= _OVERLOAD_ENDS_S and self._throughput.known

    def _seconds_ahead(self) -> float:
        return self._throughput.seconds_for(self.tensors_ahead)

    def _find_room(self, size: int, now: float) -> tuple[str | None, list[Permit]]:
        """Return "count" or "bytes" for a request that does not fit; else None and the uploads to preempt for it."""
        in_flight, total_bytes, stalled = self.in_flight, self.bytes, list[Permit]()
        reason = self._full(in_flight, total_bytes, size)
        for permit in self._uploads.stalled(now) if reason is not None else ():
            stalled.append(permit)
            in_flight, total_bytes = in_flight - 1, total_bytes - permit.size
            if self._full(in_flight, total_bytes, size) is None:
                return None, stalled
        return reason, []

    def _full(self, in_flight: int, total_bytes: int, size: int) -> str | None:
        if in_flight >= self.limits.count:
            return "count"
        return "bytes" if total_bytes + size > self.limits.bytes and in_flight else None  # one body always fits

    def _explain(self, reason: str, size: int) -> str:
        limits = self.limits
        if reason == "count":
            return f"{self.in_flight} requests in flight, limit {limits.count} (ALIGNSEG_MAX_IN_FLIGHT)."
        if reason == "bytes":
            return (
                f"{self.bytes} bytes in flight, {size} more in this request, limit {limits.bytes} "
                "(ALIGNSEG_MAX_BYTES_IN_FLIGHT). A body without Content-Length counts as it grows."
            )
        return f"{self.tensors_ahead} images and tiles are ahead, limit {self._tensor_limit()}."

    def _misses_deadline(self, deadline: float, now: float) -> str | None:
        if not self.active or deadline == float("inf") or not self._throughput.known:
            return None  # an idle server tries any deadline
        needed_s, left_s = self._throughput.seconds_for(self.tensors_ahead + 1), deadline - now
        if needed_s <= left_s:
            return None
        return (
            f"The response is due in {left_s:.3f} s but would take about {needed_s:.3f} s. "
            f"{_RETRY[:-1]}, or raise X-Request-Timeout-Ms."
        )
