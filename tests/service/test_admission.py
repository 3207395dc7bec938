import pytest

from service.admission import Admission
from service.errors import NotReady, QueueFull


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_places_are_bounded_and_come_back_once() -> None:
    admission = Admission(2)
    first, _second = admission.enter(), admission.enter()
    with pytest.raises(QueueFull, match="2 requests are in flight, at most 2"):
        admission.enter()
    first.release()
    first.release()
    assert admission.in_flight == 1
    admission.enter()
    with pytest.raises(QueueFull):
        admission.enter()


def test_retry_after_follows_the_measured_rate() -> None:
    clock = Clock()
    admission = Admission(8, clock)
    for _ in range(40):  # full batches of four that take 2 s: two places a second
        permits = [admission.enter() for _ in range(8 - admission.in_flight)]
        clock.now += 2.0
        for permit in permits[:4]:
            permit.release()
    while admission.in_flight < 8:
        admission.enter()
    assert admission.drain_s() == pytest.approx(8 / 2, rel=0.25)


def test_an_idle_hour_does_not_count() -> None:
    clock = Clock()
    admission = Admission(1, clock)
    for _ in range(5):
        permit = admission.enter()
        clock.now += 0.1
        permit.release()
        clock.now += 3600.0
    admission.enter()
    assert admission.drain_s() == pytest.approx(0.1)


def test_unmeasured_says_a_second() -> None:
    admission = Admission(1)
    admission.enter()
    with pytest.raises(QueueFull) as refused:
        admission.enter()
    assert refused.value.retry_after_s == 1.0


def test_closed() -> None:
    admission = Admission(1)
    admission.close("the server is shutting down")
    with pytest.raises(NotReady, match="shutting down"):
        admission.enter()
