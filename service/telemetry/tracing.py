"""OpenTelemetry traces, enabled by OpenTelemetry's own environment variables; otherwise nothing of it is imported.

Spans are created from the finished record of a request, with the times recorded in it: the pipeline contains no
tracing code. Configured with OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, ... as OpenTelemetry documents them.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from service.observers import never_raises
from service.telemetry.request_record import RequestRecord

log = logging.getLogger("alignseg.tracing")
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
CLOSE_TIMEOUT_S: Final = 1.0
_PROPAGATED: Final = (b"traceparent", b"tracestate")


class Tracer:
    """Exports one server span per request, with a child span per stage."""

    def __init__(self, provider: Any) -> None:
        """provider: an opentelemetry.sdk.trace.TracerProvider."""
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - an optional extra
            TraceContextTextMapPropagator,
        )

        self._provider = provider
        self._tracer = provider.get_tracer("alignseg")
        self._propagator = TraceContextTextMapPropagator()

    def export(self, record: RequestRecord, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Export a finished request; return its trace id in hex. The client's traceparent becomes the parent."""
        from opentelemetry import trace  # noqa: PLC0415

        carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name in _PROPAGATED}
        to_epoch_ns = time.time_ns() - time.monotonic_ns()
        span = self._tracer.start_span(
            f"{record.method} {record.route}",
            context=self._propagator.extract(carrier),
            kind=trace.SpanKind.SERVER,
            attributes=_attributes(record),
            start_time=to_epoch_ns + _ns(record.began),
        )
        if record.status >= 500:
            span.set_status(trace.StatusCode.ERROR)
        context = trace.set_span_in_context(span)
        for stage in record.stages:
            began = to_epoch_ns + _ns(stage.began)
            child = self._tracer.start_span(stage.name, context=context, start_time=began)
            child.end(began + _ns(stage.seconds))
        span.end()
        return trace.format_trace_id(span.get_span_context().trace_id)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Export the remaining spans. Blocks for at most `timeout_s`: a collector that is dead must not delay the exit.

        OpenTelemetry's own shutdown takes as long as an export may (OTEL_EXPORTER_OTLP_TIMEOUT, 10 s), so it runs in a
        daemon thread.
        """
        thread = threading.Thread(target=never_raises(self._provider.shutdown), name="close traces", daemon=True)
        thread.start()
        thread.join(timeout_s)
        if thread.is_alive():
            log.warning("The trace collector did not take the last spans within %g s: they are lost", timeout_s)


def from_environment(environment: Mapping[str, str] = os.environ) -> Tracer | None:
    """Return a tracer if an OTLP endpoint is set and OTEL_SDK_DISABLED is not true; else None.

    A tracer that cannot be made is logged as an error; it does not prevent serving.
    """
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or not any(environment.get(name) for name in _ENDPOINTS):
        return None
    try:
        return _otlp_tracer(environment.get("OTEL_SERVICE_NAME") or "alignseg-serve")
    except ImportError as error:
        log.error("Tracing is off: %s. Install its packages: pip install -e '.[otel]'", error)
    except Exception as error:  # of OpenTelemetry's settings, such as a time-out that is no number
        log.error("Tracing is off: %r. Correct OpenTelemetry's environment variables (OTEL_*).", error)
    return None


def _otlp_tracer(service_name: str) -> Tracer:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    # shutdown_on_exit would wait for a dead collector once more, when the interpreter exits.
    provider = TracerProvider(resource=Resource.create({"service.name": service_name}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracer(provider)


def _attributes(record: RequestRecord) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "http.request.method": record.method,
        "http.route": record.route,
        "url.path": record.path,
        "http.response.status_code": record.status,
        "http.response.body.size": record.bytes_out,
        "alignseg.request_id": record.request_id,
    }
    optional = {"alignseg.model": record.model, "alignseg.refused": record.refused}
    return attributes | {name: value for name, value in optional.items() if value is not None}


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
