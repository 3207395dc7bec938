import pytest

from service.admission.controller import PATIENCE_S, SLOWEST_BYTES_S, AdmissionController, Limits, Permit
from service.errors import NotReady, Overloaded


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def working(admission: AdmissionController, size: int = 0) -> Permit:
    permit = admission.enter(size)
    permit.body_read()
    return permit


def serve(admission: AdmissionController, clock: Clock, seconds_each: float, count: int = 40) -> None:
    """One after the other, so that the rate is known."""
    for _ in range(count):
        permit = working(admission)
        clock.now += seconds_each
        permit.release()


def fill(admission: AdmissionController) -> list[Permit]:
    permits = []
    while admission.refusal() is None:
        permits.append(working(admission))
    return permits


def refused(admission: AdmissionController, **asked: float) -> Overloaded:
    with pytest.raises(Overloaded) as caught:
        admission.enter(**asked)  # type: ignore[arg-type]
    return caught.value


def test_places_are_bounded_and_come_back_once() -> None:
    admission = AdmissionController(Limits(2))
    first, _second = admission.enter(), admission.enter()
    assert "2 requests are in flight, at most 2" in str(refused(admission))
    first.release()
    first.release()
    assert admission.in_flight == 1
    admission.enter()
    assert refused(admission).reason == "overloaded-count"


def test_a_burst_is_served_but_a_crowd_kept_short(clock: Clock) -> None:
    admission = AdmissionController(Limits(64, quick_s=0.05, busy=4), clock)
    serve(admission, clock, 0.0025)  # 400 a second
    burst = fill(admission)
    assert len(burst) == 64
    for permit in burst[:40]:  # the refusal above began a crowd: no room until 0.05 s of work are left
        clock.now += 0.0025
        permit.release()
    assert admission.work == 24
    assert refused(admission).reason == "overloaded-time"
    for permit in burst[40:50]:
        clock.now += 0.0025
        permit.release()
    assert 18 <= 14 + len(fill(admission)) <= 20


def test_a_crowd_ends_a_second_after_its_last_refusal(clock: Clock) -> None:
    admission = AdmissionController(Limits(64, quick_s=0.05), clock)
    serve(admission, clock, 0.0025)
    for permit in fill(admission):
        clock.now += 0.0025
        permit.release()
    assert admission.places() < 64
    clock.now += 1.1
    assert len(fill(admission)) == 64


def test_a_slow_engine_keeps_as_many_as_it_needs_to_be_busy(clock: Clock) -> None:
    admission = AdmissionController(Limits(64, quick_s=0.05, busy=6), clock)
    serve(admission, clock, 0.5)
    for permit in fill(admission):
        clock.now += 0.5
        permit.release()
    refused_once = [working(admission) for _ in range(64)]
    refused(admission)
    for permit in refused_once:
        clock.now += 0.01
        permit.release()
    assert admission.places() == 6


def test_bytes_are_bounded_but_one_body_always_fits() -> None:
    admission = AdmissionController(Limits(64, bytes=100))
    large = admission.enter(1000)
    assert refused(admission, size=1).reason == "overloaded-bytes"
    large.release()
    admission.enter(60)
    assert "60 bytes are in flight and 50 more" in str(refused(admission, size=50))
    admission.enter(40)


def test_a_deadline_that_can_not_be_kept_is_told_at_once(clock: Clock) -> None:
    admission = AdmissionController(Limits(64), clock)
    serve(admission, clock, 0.1)
    for _ in range(9):
        working(admission)
    admission.enter(deadline=clock.now + 1.1).release()
    assert refused(admission, deadline=clock.now + 0.5).reason == "overloaded-deadline"
    assert admission.places() == 64  # that one was in a hurry; there is no crowd


def test_an_idle_house_tries_any_deadline(clock: Clock) -> None:
    admission = AdmissionController(Limits(64), clock)
    serve(admission, clock, 10.0)
    admission.enter(deadline=clock.now + 0.001)


def test_slow_uploads_are_no_work(clock: Clock) -> None:
    admission = AdmissionController(Limits(64, quick_s=0.05, busy=2), clock)
    serve(admission, clock, 0.0025)
    slow = [admission.enter() for _ in range(30)]
    assert admission.work == 30  # they may still be quick
    clock.now += 0.1
    assert admission.refusal() is None
    assert (admission.work, admission.in_flight) == (0, 30)
    slow[0].body_read()
    assert admission.work == 1
    clock.now += 0.0025
    for permit in slow:
        permit.release()
    assert (admission.work, admission.in_flight) == (0, 0)
    working(admission)
    assert admission.estimated_drain_s() == pytest.approx(0.0025, rel=0.1)  # the time spent on uploads does not count


def uploads(admission: AdmissionController, clock: Clock, sizes: list[int]) -> list[Permit]:
    """One after the other, a tenth of a second apart."""
    permits = []
    for size in sizes:
        permits.append(admission.enter(size))
        clock.now += 0.1
    return permits


def gone(permits: list[Permit]) -> list[bool]:
    return [permit.preempted for permit in permits]


def test_who_stalled_first_gives_its_place_to_a_newcomer(clock: Clock) -> None:
    admission = AdmissionController(Limits(3), clock)
    permits = uploads(admission, clock, [10, 10, 10])
    assert refused(admission).what == "count"  # none of them has stalled yet
    clock.now += PATIENCE_S
    permits[0].received(1000)
    assert admission.rejection_reason(10) is None
    assert gone(permits) == [False] * 3  # who only asks takes nothing
    told: list[Permit] = []
    for permit in permits:
        permit.on_preempted = lambda permit=permit: told.append(permit)  # type: ignore[misc]
    admission.enter(10)
    assert told == [permits[1]]
    assert (admission.in_flight, admission.bytes) == (3, 30)
    permits[1].release()  # as its task ends
    assert (admission.in_flight, admission.bytes) == (3, 30)
    admission.enter(10)
    assert gone(permits) == [False, True, True]
    assert refused(admission).what == "count"


def test_work_keeps_its_place_however_long_it_takes(clock: Clock) -> None:
    admission = AdmissionController(Limits(2), clock)
    working(admission)
    (uploaded,) = uploads(admission, clock, [10])
    clock.now += 100.0
    uploaded.body_read()
    assert refused(admission).what == "count"
    assert not uploaded.preempted


@pytest.mark.parametrize(
    ("each", "every_s", "stays"),
    [(1, 0.1, False), (700, 0.1, False), (900, 0.1, True), (8000, 0.9, True), (10**9, 0.9, True), (10**9, 1.1, False)],
)
def test_a_place_is_kept_by_a_rate_not_by_a_byte_now_and_then(
    clock: Clock, each: int, every_s: float, stays: bool
) -> None:
    admission = AdmissionController(Limits(1), clock)
    upload = admission.enter(10**9)
    clock.now += PATIENCE_S / 2
    for _ in range(100):
        upload.received(each)
        clock.now += every_s
    assert (admission.refusal() is not None) == stays
    assert upload.arrived == 100 * each


def test_a_pause_is_forgiven_once_it_is_over(clock: Clock) -> None:
    admission = AdmissionController(Limits(1), clock)
    upload = admission.enter(10**6)
    clock.now += 10.0
    assert admission.refusal() is None
    upload.received(SLOWEST_BYTES_S // 2)
    assert refused(admission).what == "count"
    clock.now += 0.6
    assert admission.refusal() is None


def test_room_for_bytes_is_made_as_much_as_is_needed(clock: Clock) -> None:
    admission = AdmissionController(Limits(64, bytes=100), clock)
    permits = uploads(admission, clock, [30, 20, 20])
    busy = working(admission, 30)
    assert refused(admission, size=10).what == "bytes"
    clock.now += PATIENCE_S
    assert refused(admission, size=71).what == "bytes"
    assert gone(permits) == [False] * 3  # all of them would not have been enough
    admission.enter(45)
    assert gone(permits) == [True, True, False]
    assert (admission.in_flight, admission.bytes) == (3, 95)
    busy.release()
    clock.now += 2.0  # the crowd is over
    admission.enter(55)
    assert gone(permits) == [True] * 3


def test_no_place_is_taken_back_for_who_can_not_come_in(clock: Clock) -> None:
    admission = AdmissionController(Limits(2, quick_s=0.05, busy=1), clock)
    serve(admission, clock, 1.0)
    working(admission)
    (stalled,) = uploads(admission, clock, [10])
    clock.now += 2 * PATIENCE_S
    assert refused(admission, deadline=clock.now + 0.5).what == "deadline"
    admission.close("the server is shutting down")
    with pytest.raises(NotReady):
        admission.enter()
    assert not stalled.preempted


def test_who_leaves_the_house_waits_for_no_stalled_upload(clock: Clock) -> None:
    admission = AdmissionController(Limits(4), clock)
    stalled, going = uploads(admission, clock, [10, 10])
    working(admission)
    clock.now += PATIENCE_S
    going.received(1000)
    admission.close("the server is shutting down")
    admission.preempt_stalled()
    assert gone([stalled, going]) == [True, False]
    assert admission.in_flight == 2


def test_retry_after_follows_the_measured_rate(clock: Clock) -> None:
    admission = AdmissionController(Limits(8), clock)
    for _ in range(40):  # full batches of four that take 2 s: two places a second
        permits = [working(admission) for _ in range(8 - admission.in_flight)]
        clock.now += 2.0
        for permit in permits[:4]:
            permit.release()
    while admission.in_flight < 8:
        working(admission)
    assert admission.estimated_drain_s() == pytest.approx(8 / 2, rel=0.25)


def test_retry_after_grows_while_nothing_moves(clock: Clock) -> None:
    admission = AdmissionController(Limits(1), clock)
    serve(admission, clock, 0.1)
    working(admission)
    clock.now += 20.0
    assert refused(admission).retry_after_s == pytest.approx(20.0)


def test_an_idle_hour_does_not_count(clock: Clock) -> None:
    admission = AdmissionController(Limits(1), clock)
    for _ in range(5):
        serve(admission, clock, 0.1, count=1)
        clock.now += 3600.0
    working(admission)
    assert admission.estimated_drain_s() == pytest.approx(0.1)


def test_unmeasured_says_a_second() -> None:
    admission = AdmissionController(Limits(1))
    admission.enter()
    assert refused(admission).retry_after_s == 1.0


def test_closed() -> None:
    admission = AdmissionController(Limits(1))
    admission.close("the server is shutting down")
    with pytest.raises(NotReady, match="shutting down"):
        admission.enter()
