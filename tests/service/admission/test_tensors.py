"""Work is counted in tensors: an image is one, a tiled image one per tile. On a clock that the test moves."""

import pytest

from service.admission.controller import AdmissionController, Limits
from service.admission.stalled_uploads import Permit
from tests.service.admission.helpers import Clock, active, fill, rejected, serve

TILE_S = 0.2


@pytest.fixture
def clock() -> Clock:
    return Clock()


def tiled(admission: AdmissionController, tiles: int = 99) -> Permit:
    permit = active(admission)
    permit.decoded(tiles)
    return permit


def compute(permit: Permit, clock: Clock, tiles: int) -> None:
    for _ in range(tiles):
        clock.now += TILE_S
        permit.tile_computed()


def test_after_a_tiled_image_a_burst_of_ordinary_ones_is_admitted(clock: Clock) -> None:
    admission = AdmissionController(Limits(64), clock)
    permit = tiled(admission)
    compute(permit, clock, 98)
    clock.now += TILE_S
    permit.release()
    assert admission.tensors == 0
    deadline = clock.now + 30.0
    for _ in range(20):
        admission.acquire(deadline=deadline).body_read()
    assert admission.estimated_drain_s() == pytest.approx(20 * TILE_S)


def test_each_tile_is_one_completed_tensor_and_the_image_no_further_one(clock: Clock) -> None:
    admission = AdmissionController(Limits(64), clock)
    permit = tiled(admission, 3)
    for left in (2, 1, 1):  # the last one counts when the response is complete
        clock.now += TILE_S
        permit.tile_computed()
        assert admission.tensors == left
    permit.release()
    assert admission._throughput._completed == pytest.approx(1 + 0.98 + 0.98**2)
    assert admission._throughput.per_second == pytest.approx(1 / TILE_S, rel=0.05)


def test_the_drain_estimate_and_retry_after_count_the_tiles_that_are_left(clock: Clock) -> None:
    admission = AdmissionController(Limits(4), clock)
    serve(admission, clock, TILE_S)
    permit = tiled(admission)
    for _ in range(3):
        active(admission)
    assert admission.tensors == 102
    retry_s = rejected(admission).retry_after_s
    assert retry_s == pytest.approx(102 * TILE_S)
    compute(permit, clock, 50)
    assert rejected(admission).retry_after_s == pytest.approx(52 * TILE_S)


def test_a_new_request_waits_for_the_tiles_in_the_queue_not_for_all(clock: Clock) -> None:
    admission = AdmissionController(Limits(64, concurrent_tiles=8), clock)
    serve(admission, clock, TILE_S)
    for _ in range(2):
        tiled(admission)
    assert (admission.tensors, admission.tensors_ahead) == (198, 10)
    admission.acquire(deadline=clock.now + 11.1 * TILE_S).release()
    assert rejected(admission, deadline=clock.now + 10.9 * TILE_S).retry_after_s == pytest.approx(10 * TILE_S)


def test_tiled_images_do_not_exclude_others_in_an_overload(clock: Clock) -> None:
    """The overload's limit counts what is ahead of a new request: of the tiles the concurrent ones only."""
    limits = Limits(16, overload_latency_s=0.05, min_active=12, concurrent_tiles=4)
    admission = AdmissionController(limits, clock)
    serve(admission, clock, TILE_S)
    for _ in range(3):
        tiled(admission)
    ordinary = fill(admission)
    assert len(ordinary) == 13
    for permit in ordinary:
        clock.now += TILE_S / 13
        permit.release()
    serve_s = admission._throughput.seconds_for(12)
    assert admission.limit() == 12
    admitted = fill(admission)
    assert len(admitted) == 12 - 3 - 4
    error = rejected(admission)
    assert error.reason == "overloaded-time"
    assert error.retry_after_s == pytest.approx(serve_s)
    assert "12 images and tiles are ahead, limit 12" in str(error)


def test_more_tiles_than_the_limit_of_requests_reject_nothing_on_an_idle_server(clock: Clock) -> None:
    admission = AdmissionController(Limits(8, concurrent_tiles=64), clock)
    serve(admission, clock, TILE_S)
    tiled(admission)
    assert len(fill(admission)) == 7


@pytest.mark.parametrize("computed", [0, 5, 98])
def test_a_tiled_image_that_fails_leaves_nothing_behind(clock: Clock, computed: int) -> None:
    admission = AdmissionController(Limits(4), clock)
    permit = tiled(admission)
    compute(permit, clock, computed)
    permit.release()
    permit.tile_computed()  # a tile that was computed already when the request ended
    permit.image_done()
    assert (admission.tensors, admission.tensors_ahead, admission.in_flight) == (0, 0, 0)


def test_several_images_of_a_request_count_one_by_one(clock: Clock) -> None:
    admission = AdmissionController(Limits(8), clock)
    serve(admission, clock, TILE_S)
    first = active(admission)
    first.expect_images(6)
    assert admission.tensors == 6
    second = admission.acquire(tensors=0)
    second.body_read()
    for permit in (first, second):
        permit.start_image(first)
    assert (admission.tensors, admission.tensors_ahead, first.waiting) == (6, 2, 4)
    assert admission.estimated_drain_s() == pytest.approx(6 * TILE_S)
    before = admission._throughput._completed
    for left in (4, 2, 0):
        clock.now += 2 * TILE_S
        for permit in (first, second):
            permit.image_done()
        assert admission.tensors == left
        for permit in (first, second) if left else ():
            permit.start_image(first)
    second.release()
    first.release()
    assert (admission.tensors, admission.in_flight) == (0, 0)
    assert admission._throughput._completed == pytest.approx(before * 0.98**6 + sum(0.98**i for i in range(6)))
    active(admission)
    assert admission.estimated_drain_s() == pytest.approx(TILE_S, rel=0.05)


def test_a_request_of_several_images_that_is_cancelled_leaves_nothing_behind() -> None:
    admission = AdmissionController(Limits(8))
    first = active(admission)
    first.expect_images(16)
    second = admission.acquire(tensors=0)
    first.start_image(first)
    second.start_image(first)
    second.decoded(30)
    assert admission.tensors == 14 + 1 + 30
    for permit in (second, first):
        permit.release()
    assert (admission.tensors, admission.tensors_ahead, admission.in_flight) == (0, 0, 0)


def test_slow_uploads_are_no_work(clock: Clock) -> None:
    admission = AdmissionController(Limits(8, overload_latency_s=0.05), clock)
    admission.acquire()
    clock.now += 0.1
    admission.rejection()  # marks it as slow
    assert (admission.tensors, admission.tensors_ahead) == (0, 0)


def test_the_decoding_of_a_tiled_image_does_not_lower_the_rate(clock: Clock) -> None:
    admission = AdmissionController(Limits(64), clock)
    permit = active(admission)
    clock.now += 20 * TILE_S
    permit.decoded(99)
    compute(permit, clock, 3)
    assert admission.estimated_drain_s() == pytest.approx(96 * TILE_S)
