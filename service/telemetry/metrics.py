"""Prometheus metrics. Every label has few, known values, so that clients cannot create new series.

Each application has its own registry: several in one process (tests) stay independent.
"""

import collections
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from service.observers import isolated
from service.telemetry.request_record import RequestRecord

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES: Final = (1, 2, 4, 8, 16, 32, 64)
STAGES: Final = ("decode", "queue", "infer", "encode")


class Metrics:
    """All metrics of one application."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._rejected_early = collections.Counter[tuple[str, str, str]]()  # added to the counters by render()
        self._known_paths: set[str] = set()  # paths without parameters: as many as there are routes
        ProcessCollector(registry=registry)  # resident memory, CPU seconds, open files
        GCCollector(registry=registry)
        self._requests = Counter(
            "alignseg_requests", "Responses by route and status", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "alignseg_request_duration_seconds", "Time from the head of a request to the last byte of its response",
            ["route"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._rejected = Counter(
            "alignseg_requests_rejected", "Rejected requests by reason", ["reason"], registry=registry
        )
        self._stages = Histogram(
            "alignseg_stage_duration_seconds", "Time of an image in each stage; queue is the wait for the engine",
            ["model", "stage"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._batches = Histogram(
            "alignseg_batch_size", "Images per engine call", ["model"], buckets=_BATCHES, registry=registry
        )
        self._failures = Counter(
            "alignseg_engine_failures", "Failed engine calls by kind of error", ["model", "kind"], registry=registry
        )
        self._swaps = Counter(
            "alignseg_model_swaps", "Changed models by outcome: swapped or refused", ["outcome"], registry=registry
        )
        self._serving = Gauge(
            "alignseg_model_serving",
            "1 for the model that serves new requests",
            ["model", "version", "engine"],
            registry=registry,
        )
        # labels() takes a lock and builds strings; the children used by every request are cached.
        self._requests_of = lru_cache(256)(self._requests.labels)
        self._seconds_of = lru_cache(256)(self._seconds.labels)
        self._rejected_of = lru_cache(256)(self._rejected.labels)
        self._stages_of = lru_cache(256)(self._stages.labels)
        for outcome in ("swapped", "refused"):
            self._swaps.labels(outcome)  # exported as 0 from the start: an alert cannot use an absent series

    def add_gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Add a gauge alignseg_`name`; `read` is called at each scrape, and the value is NaN where it fails."""

        def read_or_nan() -> float:
            with isolated:
                return read()
            return math.nan  # one gauge that fails must not take the others along

        Gauge(f"alignseg_{name}", help_text, registry=self.registry).set_function(read_or_nan)

    def finished(self, record: RequestRecord) -> None:
        """Count a request at its end, and observe its duration and stages."""
        route = self._label(record)
        self._requests_of(route, str(record.status)).inc()
        self._seconds_of(route).observe(record.seconds)
        if record.refused is not None:
            self._rejected_of(record.refused).inc()
        if record.model is not None:
            for stage in record.stages:
                self._stages_of(record.model, stage.name).observe(stage.seconds)

    def rejected_early(self, path: str, status: int, reason: str) -> None:
        """Count a request that was rejected before it reached the application. Its duration is not observed."""
        self._rejected_early[path if path in self._known_paths else "other", str(status), reason] += 1

    def record_connection_error(self, reason: str) -> None:
        """Count an error outside any request: "malformed-http" or "response-not-read"."""
        self._rejected_of(reason).inc()

    def _label(self, record: RequestRecord) -> str:
        """Return the route's template; for a request rejected before routing, the one known for its path."""
        if not record.route:
            return record.path if record.path in self._known_paths else "other"
        if record.route == record.path:
            self._known_paths.add(record.path)
        return record.route

    def engine_call(self, model: str, size: int, failure: str | None) -> None:
        """Count an engine call. size: images. failure: the error's class name, if any. Called in engine threads."""
        self._batches.labels(model).observe(size)
        if failure is not None:
            self._failures.labels(model, failure).inc()

    def model_swap(self, outcome: str) -> None:
        """Count a changed model: "swapped" or "refused"."""
        self._swaps.labels(outcome).inc()

    def set_serving(self, model: str, version: str, engine: str) -> None:
        """Export which model serves new requests."""
        self._serving.clear()
        self._serving.labels(model, version, engine).set(1)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        rejected, self._rejected_early = self._rejected_early, collections.Counter()
        for (route, status, reason), count in rejected.items():
            self._requests_of(route, status).inc(count)
            self._rejected_of(reason).inc(count)
        return generate_latest(self.registry)
