"""Who may come in: bounded by number, by bytes and by time, with an honest word to the others about when to come back.

While everybody finds a place, all are served, a burst too. Once somebody has to be turned away anyway, there is more
work than capacity, and a long queue would only make every answer late: then so many places remain as are worked off
within `quick_s`, but never fewer than keep every stage busy. So goodput stays near capacity at any overload.

A slow upload holds a place and its bytes, but is no work: counted as such it would look like a slow engine. One that
has stalled holds them only as long as nobody else wants them: a newcomer who finds no place, or no room for its bytes,
is given those of the upload that stalled first. Else a few connections that send nothing could keep the house shut.
Used on the event loop alone, so it needs no lock.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Final

from service.admission.throughput import ThroughputMeter
from service.errors import NotReady, Overloaded, RequestError

CLOSED: Final = "closed"
_CROWDED_S: Final = 1.0  # without a refusal, after which the crowd is over
SLOWEST_BYTES_S: Final = 8000  # an upload below that has stalled; 64 kbit/s, ISDN's
PATIENCE_S: Final = 1.0  # how long it may pause, the time before its first byte included


@dataclass(frozen=True, slots=True)
class Limits:
    """count: requests in the house, uploads included. bytes: of their bodies, as announced.

    quick_s: how long all accepted work may take while others are turned away.
    busy: so many places keep every stage of the road busy.
    """

    count: int
    bytes: int = 2**63
    quick_s: float = 0.05
    busy: int = 1


class Permit:
    """One place in the house. Released once, when the work ends; not when its client stops waiting.

    size: bytes announced. arrived: bytes that came. stalls_at: when, on the clock, its upload has stalled unless more
    comes; a byte puts that off by the time it may take at SLOWEST_BYTES_S, so one now and then does not help.
    on_preempted: called when the place was given to somebody else.
    """

    def __init__(self, admission: "AdmissionController", size: int, now: float) -> None:
        self.size = size
        self.arrived = 0
        self.entered = now
        self.stalls_at = now + PATIENCE_S
        self.on_preempted: Callable[[], object] = lambda: None
        self.preempted = False
        self._admission: AdmissionController | None = admission

    def received(self, size: int) -> None:
        """So many bytes more have come."""
        if self._admission is not None:
            now = self._admission.clock()
            self.arrived += size
            self.stalls_at = min(max(self.stalls_at, now) + size / SLOWEST_BYTES_S, now + PATIENCE_S)

    def preempt(self) -> None:
        """Give the place to somebody else: its upload has stalled."""
        self.preempted = True
        self.release()
        self.on_preempted()

    def body_read(self) -> None:
        """The upload is over: from here on it is work."""
        if self._admission is not None:
            self._admission.uploaded(self)

    def release(self, *_: object) -> None:
        """Give the place back. Idempotent; takes any arguments so that it can be a done-callback."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.left(self)


class AdmissionController:
    """Counts the places taken and measures how fast they become free.

    in_flight: all that is in the house. work: without slow uploads.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.in_flight = 0
        self.bytes = 0
        self.closed_because: str | None = None
        self.clock = clock
        self._rate = ThroughputMeter(clock)
        self._uploading: dict[Permit, None] = {}  # in order of arrival, slow ones taken out
        self._slow: set[Permit] = set()
        self._refused_at = float("-inf")

    @property
    def work(self) -> int:
        """Requests that ask for the engine and the codecs, or will within a moment."""
        return self.in_flight - len(self._slow)

    def enter(self, size: int = 0, deadline: float = float("inf")) -> Permit:
        """Take a place, if need be that of a stalled upload.

        size: bytes of the body. deadline: on the clock. Raises Overloaded, or NotReady when the house is closed.
        """
        if (refusal := self.refusal(size, deadline)) is not None:
            raise refusal
        for stalled in self._in_the_way(size, self.clock())[1]:
            stalled.preempt()
        permit = Permit(self, size, self.clock())
        self._rate.begins(self.work)
        self._uploading[permit] = None
        self.in_flight += 1
        self.bytes += size
        return permit

    def refusal(self, size: int = 0, deadline: float = float("inf")) -> RequestError | None:
        """Why such a request can't come in now; None when it can."""
        if (what := self.rejection_reason(size)) is not None:
            return self.refused(what, size)
        if (late := self._too_late(deadline, self.clock())) is not None:
            return Overloaded(f"{late} Come back after Retry-After.", self.estimated_drain_s(), "deadline")
        return None

    def refused(self, what: str, size: int) -> RequestError:
        """The words for what `rejection_reason` said of a request of that size."""
        if what == CLOSED:
            return NotReady(f"{self.closed_because}; send the request to another replica, or come back.")
        return Overloaded(f"{self._told(what, size)} Come back after Retry-After.", self.estimated_drain_s(), what)

    def rejection_reason(self, size: int) -> str | None:
        """CLOSED, or what there is too much of for one more (see Overloaded); None: come in. Cheap: asked in floods."""
        if self.closed_because is not None:
            return CLOSED
        now = self.clock()
        what = self._too_much(size, now)
        if what is not None:  # one that is only in a hurry says nothing about the crowd
            self._refused_at = now
        return what

    @property
    def may_refuse(self) -> bool:
        """False for an empty house: that refuses nobody, and need not be asked."""
        return self.in_flight > 0 or self.closed_because is not None

    def close(self, because: str) -> None:
        """Let nobody in any more."""
        self.closed_because = because

    def preempt_stalled(self) -> None:
        """Wait for no upload that has stalled: the house is to be left."""
        for stalled in self._stalled(self.clock()):
            stalled.preempt()

    def estimated_drain_s(self) -> float:
        """Seconds until all work that is in the house now is done, from the measured rate."""
        return self._rate.seconds_for(self.work)

    def places(self) -> int:
        """How much work is taken at the moment."""
        limits = self.limits
        if self.clock() - self._refused_at > _CROWDED_S or not self._rate.known:
            return limits.count
        return min(limits.count, max(limits.busy, int(limits.quick_s * self._rate.per_second)))

    def _too_much(self, size: int, now: float) -> str | None:
        if (what := self._in_the_way(size, now)[0]) is not None:
            return what
        self._set_slow_aside(now)
        return "time" if self.work >= self.places() else None

    def _in_the_way(self, size: int, now: float) -> tuple[str | None, list[Permit]]:
        """What there is too much of, "count" or "bytes"; None when it fits once these stalled uploads are gone."""
        count, taken, leaving = self.in_flight, self.bytes, list[Permit]()
        what = self._too_full(count, taken, size)
        for stalled in self._stalled(now) if what is not None else ():
            leaving.append(stalled)
            count, taken = count - 1, taken - stalled.size
            if self._too_full(count, taken, size) is None:
                return None, leaving
        return what, []

    def _too_full(self, count: int, taken: int, size: int) -> str | None:
        if count >= self.limits.count:
            return "count"
        return "bytes" if taken + size > self.limits.bytes and count else None

    def _stalled(self, now: float) -> list[Permit]:
        """Uploads that have stalled, the longest first."""
        uploading = chain(self._slow, self._uploading)
        return sorted((permit for permit in uploading if permit.stalls_at < now), key=lambda permit: permit.stalls_at)

    def _told(self, what: str, size: int) -> str:
        limits = self.limits
        if what == "count":
            return (
                f"{self.in_flight} requests are in flight, at most {limits.count} are taken (ALIGNSEG_MAX_IN_FLIGHT)."
            )
        if what == "bytes":
            return (
                f"{self.bytes} bytes are in flight and {size} more announced (or the most that is taken, where no "
                f"Content-Length is given); at most {limits.bytes} fit (ALIGNSEG_MAX_BYTES_IN_FLIGHT)."
            )
        return f"{self.work} requests are at work, {self.places()} are what can be answered quickly."

    def _too_late(self, deadline: float, now: float) -> str | None:
        if not self.work or deadline == float("inf") or not self._rate.known:
            return None  # an idle house tries
        wait_s, left_s = self._rate.seconds_for(self.work + 1), deadline - now
        if wait_s <= left_s:
            return None
        return f"the answer is due in {left_s:.3f} s but would take about {wait_s:.3f} s."

    def _set_slow_aside(self, now: float) -> None:
        while self._uploading and now - (oldest := next(iter(self._uploading))).entered > self.limits.quick_s:
            del self._uploading[oldest]
            self._slow.add(oldest)

    def uploaded(self, permit: Permit) -> None:
        """Called by the permit."""
        self._uploading.pop(permit, None)
        if permit in self._slow:
            self._rate.begins(self.work)
            self._slow.remove(permit)

    def left(self, permit: Permit) -> None:
        """Called by the permit."""
        self._rate.done(was_work=permit not in self._slow and permit not in self._uploading)
        self._uploading.pop(permit, None)
        self._slow.discard(permit)
        self.in_flight -= 1
        self.bytes -= permit.size
