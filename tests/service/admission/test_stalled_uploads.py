"""Slow and stalled uploads, on a clock that the test moves."""

import pytest

from service.admission.controller import AdmissionController, Limits
from service.admission.stalled_uploads import MAX_PAUSE_S, MIN_BYTES_PER_S, Permit
from service.errors import NotReady
from tests.service.admission.helpers import Clock, active, rejected, serve


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_slow_uploads_are_not_active(clock: Clock) -> None:
    admission = AdmissionController(Limits(64, overload_latency_s=0.05, min_active=2), clock)
    serve(admission, clock, 0.0025)
    slow = [admission.acquire() for _ in range(30)]
    assert admission.active == 30  # they may still be fast
    clock.now += 0.1
    assert admission.rejection() is None
    assert (admission.active, admission.in_flight) == (0, 30)
    slow[0].body_read()
    assert admission.active == 1
    clock.now += 0.0025
    for permit in slow:
        permit.release()
    assert (admission.active, admission.in_flight) == (0, 0)
    active(admission)
    assert admission.estimated_drain_s() == pytest.approx(0.0025, rel=0.1)  # upload time is not counted


def uploads(admission: AdmissionController, clock: Clock, sizes: list[int]) -> list[Permit]:
    """Uploads that begin a tenth of a second apart."""
    permits = []
    for size in sizes:
        permits.append(admission.acquire(size))
        clock.now += 0.1
    return permits


def preempted(permits: list[Permit]) -> list[bool]:
    return [permit.preempted for permit in permits]


def test_a_new_request_gets_the_slot_of_the_upload_that_stalled_first(clock: Clock) -> None:
    admission = AdmissionController(Limits(3), clock)
    permits = uploads(admission, clock, [10, 10, 10])
    assert rejected(admission).what == "count"  # none of them has stalled yet
    clock.now += MAX_PAUSE_S
    permits[0].received(10)
    assert admission.rejection_reason(10) is None
    assert preempted(permits) == [False] * 3  # asking preempts nothing
    calls: list[Permit] = []
    for permit in permits:
        permit.on_preempted = lambda permit=permit: calls.append(permit)  # type: ignore[misc]
    admission.acquire(10)
    assert calls == [permits[1]]
    assert (admission.in_flight, admission.bytes) == (3, 30)
    permits[1].release()  # as its task ends
    assert (admission.in_flight, admission.bytes) == (3, 30)
    admission.acquire(10)
    assert preempted(permits) == [False, True, True]
    assert rejected(admission).what == "count"


def test_an_active_request_is_never_preempted(clock: Clock) -> None:
    admission = AdmissionController(Limits(2), clock)
    active(admission)
    (uploaded,) = uploads(admission, clock, [10])
    clock.now += 100.0
    uploaded.body_read()
    assert rejected(admission).what == "count"
    assert not uploaded.preempted


@pytest.mark.parametrize(
    ("each", "every_s", "stays"),
    [(1, 0.1, False), (700, 0.1, False), (900, 0.1, True), (8000, 0.9, True), (10**9, 0.9, True), (10**9, 1.1, False)],
)
def test_a_slot_is_kept_by_a_minimum_rate_not_by_an_occasional_byte(
    clock: Clock, each: int, every_s: float, stays: bool
) -> None:
    admission = AdmissionController(Limits(1), clock)
    upload = admission.acquire(10**9)
    clock.now += MAX_PAUSE_S / 2
    for _ in range(100):
        upload.received(each)
        clock.now += every_s
    assert (admission.rejection() is not None) == stays
    assert upload.arrived == 100 * each


def test_an_upload_that_resumes_is_no_longer_stalled(clock: Clock) -> None:
    admission = AdmissionController(Limits(1), clock)
    upload = admission.acquire(10**6)
    clock.now += 10.0
    assert admission.rejection() is None
    upload.received(MIN_BYTES_PER_S // 2)
    assert rejected(admission).what == "count"
    clock.now += 0.6
    assert admission.rejection() is None


def test_as_many_uploads_are_preempted_as_the_bytes_require(clock: Clock) -> None:
    admission = AdmissionController(Limits(64, bytes=100), clock)
    permits = uploads(admission, clock, [30, 20, 20])
    request = active(admission, 30)
    assert rejected(admission, size=10).what == "bytes"
    clock.now += MAX_PAUSE_S
    assert rejected(admission, size=71).what == "bytes"
    assert preempted(permits) == [False] * 3  # all of them would not have been enough
    admission.acquire(45)
    assert preempted(permits) == [True, True, False]
    assert (admission.in_flight, admission.bytes) == (3, 95)
    request.release()
    clock.now += 2.0  # the overload is over
    admission.acquire(55)
    assert preempted(permits) == [True] * 3


def test_nothing_is_preempted_for_a_request_that_is_rejected(clock: Clock) -> None:
    admission = AdmissionController(Limits(2, overload_latency_s=0.05, min_active=1), clock)
    serve(admission, clock, 1.0)
    active(admission)
    (stalled,) = uploads(admission, clock, [10])
    clock.now += 2 * MAX_PAUSE_S
    assert rejected(admission, deadline=clock.now + 0.5).what == "deadline"
    admission.close("the server is shutting down")
    with pytest.raises(NotReady):
        admission.acquire()
    assert not stalled.preempted


def test_a_draining_server_preempts_stalled_uploads(clock: Clock) -> None:
    admission = AdmissionController(Limits(4), clock)
    stalled, steady = uploads(admission, clock, [10, 10])
    active(admission)
    clock.now += MAX_PAUSE_S
    steady.received(1000)
    admission.close("the server is shutting down")
    admission.preempt_stalled()
    assert preempted([stalled, steady]) == [True, False]
    assert admission.in_flight == 2
