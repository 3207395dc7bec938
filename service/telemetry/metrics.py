"""Figures for Prometheus. Every label has few values, all known beforehand, so that no client can blow them up.

Each application has its own registry: two in one process (tests) don't meet.
"""

from collections import Counter as Counts
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from service.telemetry.request_record import RequestRecord

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES: Final = (1, 2, 4, 8, 16, 32, 64)
STAGES: Final = ("decode", "queue", "infer", "encode")


class Metrics:
    """All figures of one application."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._turned_away = Counts[tuple[str, str, str]]()  # added to the counters when somebody looks at them
        self._known: set[str] = set()  # paths without parameters: as many as there are routes
        ProcessCollector(registry=registry)  # resident memory, CPU seconds, open files
        GCCollector(registry=registry)
        self._requests = Counter(
            "alignseg_requests", "Answers by route and status", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "alignseg_request_duration_seconds", "From a request's head to its last byte", ["route"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._rejected = Counter(
            "alignseg_requests_rejected", "Requests turned away, by reason", ["reason"], registry=registry
        )
        self._stages = Histogram(
            "alignseg_stage_duration_seconds", "A picture's time in each stage; queue is its wait for the engine",
            ["model", "stage"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._batches = Histogram(
            "alignseg_batch_size", "Pictures in each call of the engine", ["model"], buckets=_BATCHES, registry=registry
        )
        self._failures = Counter(
            "alignseg_engine_failures", "Calls of the engine that failed", ["model", "kind"], registry=registry
        )
        self._swaps = Counter(
            "alignseg_model_swaps", "Changed models: swapped or refused", ["outcome"], registry=registry
        )
        self._serving = Gauge(
            "alignseg_model_serving", "1 for the model that answers", ["model", "version", "engine"], registry=registry
        )
        # labels() takes a lock and makes strings each time; what is asked for with every request is remembered.
        self._requests_of = lru_cache(256)(self._requests.labels)
        self._seconds_of = lru_cache(256)(self._seconds.labels)
        self._rejected_of = lru_cache(256)(self._rejected.labels)
        self._stages_of = lru_cache(256)(self._stages.labels)
        for outcome in ("swapped", "refused"):
            self._swaps.labels(outcome)  # shown as 0 from the start: an alert can't see what is absent

    def watch(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when Prometheus asks."""
        Gauge(f"alignseg_{name}", help_text, registry=self.registry).set_function(read)

    def finished(self, record: RequestRecord) -> None:
        """Count a request at its end."""
        route = self._label(record)
        self._requests_of(route, str(record.status)).inc()
        self._seconds_of(route).observe(record.seconds)
        if record.refused is not None:
            self._rejected_of(record.refused).inc()
        if record.model is not None:
            for stage in record.stages:
                self._stages_of(record.model, stage.name).observe(stage.seconds)

    def refused(self, path: str, status: int, reason: str) -> None:
        """Count a request that was turned away at the door; it took no time worth a histogram."""
        self._turned_away[path if path in self._known else "other", str(status), reason] += 1

    def mishap(self, reason: str) -> None:
        """Count what went wrong outside of any request's life: a message that is no HTTP, an answer nobody took."""
        self._rejected_of(reason).inc()

    def _label(self, record: RequestRecord) -> str:
        """A route's template. Who was refused before it was looked for has the one that others had at this path."""
        if not record.route:
            return record.path if record.path in self._known else "other"
        if record.route == record.path:
            self._known.add(record.path)
        return record.route

    def batch(self, model: str, size: int, failure: str | None) -> None:
        """Count a call of the engine; failure: the error's class name. Called from the engine's thread."""
        self._batches.labels(model).observe(size)
        if failure is not None:
            self._failures.labels(model, failure).inc()

    def swap(self, outcome: str) -> None:
        """Count a changed model: "swapped" or "refused"."""
        self._swaps.labels(outcome).inc()

    def serving(self, model: str, version: str, engine: str) -> None:
        """Say which model answers from now on."""
        self._serving.clear()
        self._serving.labels(model, version, engine).set(1)

    def render(self) -> bytes:
        """The page that Prometheus reads."""
        turned_away, self._turned_away = self._turned_away, Counts()
        for (route, status, reason), number in turned_away.items():
            self._requests_of(route, status).inc(number)
            self._rejected_of(reason).inc(number)
        return generate_latest(self.registry)
