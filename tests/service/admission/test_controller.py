"""Which requests are admitted, on a clock that the test moves."""

import pytest

from service.admission.controller import AdmissionController, Limits
from service.errors import NotReady
from tests.service.admission.helpers import Clock, active, fill, rejected, serve


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_slots_are_limited_and_released_once() -> None:
    admission = AdmissionController(Limits(2))
    first, _second = admission.acquire(), admission.acquire()
    assert "Server overloaded: 2 requests in flight, limit 2 (ALIGNSEG_MAX_IN_FLIGHT)." in str(rejected(admission))
    first.release()
    first.release()
    assert admission.in_flight == 1
    admission.acquire()
    assert rejected(admission).reason == "overloaded-count"


def test_a_burst_is_admitted_but_overload_is_kept_short(clock: Clock) -> None:
    admission = AdmissionController(Limits(64, overload_latency_s=0.05, min_active=4), clock)
    serve(admission, clock, 0.0025)  # 400 a second
    burst = fill(admission)
    assert len(burst) == 64
    for permit in burst[:40]:  # the rejection above began an overload: the limit is now 0.05 s of work
        clock.now += 0.0025
        permit.release()
    assert admission.active == 24
    assert rejected(admission).reason == "overloaded-time"
    for permit in burst[40:50]:
        clock.now += 0.0025
        permit.release()
    assert 18 <= 14 + len(fill(admission)) <= 20


def test_an_overload_ends_a_second_after_its_last_rejection(clock: Clock) -> None:
    admission = AdmissionController(Limits(64, overload_latency_s=0.05), clock)
    serve(admission, clock, 0.0025)
    for permit in fill(admission):
        clock.now += 0.0025
        permit.release()
    assert admission.limit() < 64
    clock.now += 1.1
    assert len(fill(admission)) == 64


def test_the_limit_is_at_least_min_active(clock: Clock) -> None:
    admission = AdmissionController(Limits(64, overload_latency_s=0.05, min_active=6), clock)
    serve(admission, clock, 0.5)
    for permit in fill(admission):
        clock.now += 0.5
        permit.release()
    admitted = [active(admission) for _ in range(64)]
    rejected(admission)
    for permit in admitted:
        clock.now += 0.01
        permit.release()
    assert admission.limit() == 6


def test_bytes_are_limited_but_one_body_always_fits() -> None:
    admission = AdmissionController(Limits(64, bytes=100))
    large = admission.acquire(1000)
    assert rejected(admission, size=1).reason == "overloaded-bytes"
    large.release()
    admission.acquire(60)
    assert "60 bytes in flight, 50 more in this request, limit 100" in str(rejected(admission, size=50))
    admission.acquire(40)


def test_a_request_that_cannot_meet_its_deadline_is_rejected_at_once(clock: Clock) -> None:
    admission = AdmissionController(Limits(64), clock)
    serve(admission, clock, 0.1)
    for _ in range(9):
        active(admission)
    admission.acquire(deadline=clock.now + 1.1).release()
    assert rejected(admission, deadline=clock.now + 0.5).reason == "overloaded-deadline"
    assert admission.limit() == 64  # a short deadline does not indicate overload


def test_an_idle_server_tries_any_deadline(clock: Clock) -> None:
    admission = AdmissionController(Limits(64), clock)
    serve(admission, clock, 10.0)
    admission.acquire(deadline=clock.now + 0.001)


def test_retry_after_follows_the_measured_throughput(clock: Clock) -> None:
    admission = AdmissionController(Limits(8), clock)
    for _ in range(40):  # full batches of four that take 2 s: two requests per second
        permits = [active(admission) for _ in range(8 - admission.in_flight)]
        clock.now += 2.0
        for permit in permits[:4]:
            permit.release()
    while admission.in_flight < 8:
        active(admission)
    assert admission.estimated_drain_s() == pytest.approx(8 / 2, rel=0.25)


def test_retry_after_grows_while_nothing_completes(clock: Clock) -> None:
    admission = AdmissionController(Limits(1), clock)
    serve(admission, clock, 0.1)
    active(admission)
    clock.now += 20.0
    assert rejected(admission).retry_after_s == pytest.approx(20.0)


def test_idle_time_does_not_lower_the_throughput(clock: Clock) -> None:
    admission = AdmissionController(Limits(1), clock)
    for _ in range(5):
        serve(admission, clock, 0.1, count=1)
        clock.now += 3600.0
    active(admission)
    assert admission.estimated_drain_s() == pytest.approx(0.1)


def test_retry_after_is_a_second_before_any_measurement() -> None:
    admission = AdmissionController(Limits(1))
    admission.acquire()
    assert rejected(admission).retry_after_s == 1.0


def test_a_closed_controller_admits_nothing() -> None:
    admission = AdmissionController(Limits(1))
    admission.close("the server is shutting down")
    with pytest.raises(NotReady, match="shutting down"):
        admission.acquire()
