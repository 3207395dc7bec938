import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from service.app import create_app
from service.settings import Settings
from service.telemetry import tracing
from service.telemetry.tracing import Tracer
from tests.support import fake_engine
from tests.support.fake_engine import FakeEngine, encoded, serving_app, striped

PNG = encoded(striped())
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def app(tracer: Tracer | None) -> FastAPI:
    return create_app(Settings(model_poll_s=0), [FakeEngine()], fake_engine.manifest(), tracer=tracer)


async def test_one_span_per_request_and_one_per_stage() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with serving_app(app(Tracer(provider))) as client:
        await client.post("/segment", content=PNG, headers={"traceparent": PARENT})
        await client.post("/segment", content=b"no picture")
    spans: dict[str, list[ReadableSpan]] = {}
    for span in exporter.get_finished_spans():
        spans.setdefault(span.name, []).append(span)
    good, bad = spans["POST /segment"]
    assert good.kind is SpanKind.SERVER
    assert good.parent is not None
    assert f"{good.parent.span_id:x}" == "b7ad6b7169203331"
    assert f"{good.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert good.attributes is not None
    assert good.attributes["http.response.status_code"] == 200
    assert good.attributes["alignseg.model"] == "fake"
    assert bad.attributes is not None
    assert bad.attributes["alignseg.refused"] == "unsupported-image"
    at = good.start_time or 0
    for name in ("decode", "queue", "infer", "encode"):
        (stage,) = spans[name]
        assert stage.parent is not None
        assert stage.parent.span_id == good.context.span_id
        assert at <= (stage.start_time or 0) <= (stage.end_time or 0) <= (good.end_time or 0)
        at = stage.start_time or 0


class Collector:
    """An OTLP endpoint that records the spans' names."""

    def __init__(self) -> None:
        self.names: list[str] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    collector.names += [span.name for scope in resource.scope_spans for span in scope.spans]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def collector() -> Generator[Collector, None, None]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


async def test_opentelemetry_variables_export_to_a_collector(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    async with serving_app(app(None)) as client:
        await client.post("/segment", content=PNG)
    assert sorted(collector.names) == ["POST /segment", "decode", "encode", "infer", "queue"]  # exported on shutdown


def test_no_tracer_without_an_endpoint() -> None:
    assert tracing.from_environment({}) is None
    disabled = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}
    assert tracing.from_environment(disabled) is None


def test_a_missing_extra_is_logged_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.resources", None)
    assert tracing.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) is None
    assert "-e '.[otel]'" in caplog.text
