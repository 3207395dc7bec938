"""Helpers of the admission tests."""

import pytest

from service.admission.controller import AdmissionController
from service.admission.stalled_uploads import Permit
from service.errors import Overloaded


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def active(admission: AdmissionController, size: int = 0) -> Permit:
    """A request whose upload is complete."""
    permit = admission.acquire(size)
    permit.body_read()
    return permit


def serve(admission: AdmissionController, clock: Clock, seconds_each: float, count: int = 40) -> None:
    """Complete requests one by one, so that the throughput is known."""
    for _ in range(count):
        permit = active(admission)
        clock.now += seconds_each
        permit.release()


def fill(admission: AdmissionController) -> list[Permit]:
    permits = []
    while admission.rejection() is None:
        permits.append(active(admission))
    return permits


def rejected(admission: AdmissionController, **request: float) -> Overloaded:
    with pytest.raises(Overloaded) as caught:
        admission.acquire(**request)  # type: ignore[arg-type]
    return caught.value
