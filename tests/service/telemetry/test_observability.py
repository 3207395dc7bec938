import io
import json
import logging
from collections.abc import Generator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry import logs
from tests.support.fake_engine import FakeEngine, encoded, serving, striped

PNG = encoded(striped())


@pytest.fixture
def log() -> Generator[io.StringIO, None, None]:
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.configure("json", stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def lines(log: io.StringIO, logger: str = "alignseg.access") -> list[dict[str, object]]:
    logging.getLogger().handlers[0].flush()
    records = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in records if line["logger"] == logger]


def samples(page: str) -> dict[tuple[str, ...], float]:
    """{(name, label values in order of their names...): value}"""
    families = text_string_to_metric_families(page)
    return {(s.name, *dict(sorted(s.labels.items())).values()): s.value for family in families for s in family.samples}


async def test_each_request_is_logged_with_its_id_and_stages(log: io.StringIO) -> None:
    async with serving() as (client, _):
        await client.post("/segment", content=PNG, headers={"X-Request-Id": "abc-1"})
        await client.post("/segment", content=b"no picture", headers={"X-Request-Id": "abc-2"})
        await client.get("/healthz/ready")
    good, bad = lines(log)
    assert {k: good[k] for k in ("level", "message", "request_id", "method", "path", "status", "model")} == {
        "level": "info", "message": "request", "request_id": "abc-1", "method": "POST", "path": "/segment",
        "status": 200, "model": "fake",
    }  # fmt: skip
    assert list(good["stages_ms"]) == ["decode", "queue", "infer", "encode"]  # type: ignore[call-overload]
    assert good["ms"] > 0  # type: ignore[operator]
    assert good["bytes_out"] > 100  # type: ignore[operator]
    assert str(good["time"]).endswith("Z")
    assert (bad["request_id"], bad["status"], bad["refused"]) == ("abc-2", 415, "unsupported-image")


async def test_a_bug_is_a_500_with_its_traceback_in_the_log(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.inference.pipeline.Pipeline.segment", lambda *args, **options: 1 / 0)
    async with serving() as (client, _):
        response = await client.post("/segment", content=PNG, headers={"X-Request-Id": "bug"})
    assert (response.status_code, response.headers["x-request-id"]) == (500, "bug")
    assert [line["status"] for line in lines(log)] == [500]
    assert "ZeroDivisionError" in str(lines(log, "alignseg.http")[0]["exception"])


def test_text_format() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.TextFormatter())
    record = logging.LogRecord("alignseg.access", logging.INFO, "", 0, "request", (), None)
    record.fields = {"status": 200, "ms": 1.5, "stages_ms": {"decode": 0.5, "queue": 1}}
    handler.emit(record)
    line = "INFO alignseg.access: request status=200 ms=1.5 stages_ms.decode=0.5 stages_ms.queue=1\n"
    assert stream.getvalue().endswith(line)


@pytest.mark.parametrize("form", ["text", "json"])
def test_uvicorns_ordinary_lines_are_not_named_error(form: logs.LogFormat) -> None:
    formatter = logs.TextFormatter() if form == "text" else logs.JsonFormatter()
    line = formatter.format(logging.LogRecord("uvicorn.error", logging.INFO, "", 0, "Shutting down", (), None))
    assert "uvicorn" in line
    assert "error" not in line


async def test_metrics_count_stages_batches_and_rejections(log: io.StringIO) -> None:
    async with serving() as (client, _):
        for body in (PNG, PNG, b"no picture"):
            await client.post("/segment", content=body)
        await client.get("/nowhere/at/all")
        response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    metrics = samples(response.text)
    assert metrics["alignseg_requests_total", "/segment", "200"] == 2
    assert metrics["alignseg_requests_total", "/segment", "415"] == 1
    assert metrics["alignseg_requests_total", "other", "404"] == 1
    assert metrics["alignseg_requests_rejected_total", "unsupported-image"] == 1
    for stage in ("decode", "queue", "infer", "encode"):
        assert metrics["alignseg_stage_duration_seconds_count", "fake", stage] == 2
    assert metrics["alignseg_batch_size_count", "fake"] == 4  # two to warm up
    assert metrics["alignseg_model_serving", "fake", "fake", "1"] == 1
    assert metrics["alignseg_in_flight",] == 0
    assert metrics["alignseg_log_lines_lost",] == 0
    assert metrics["alignseg_model_swaps_total", "refused"] == 0
    assert metrics["process_resident_memory_bytes",] > 1e6


async def test_metrics_count_failures_of_the_engine_by_kind() -> None:
    engine = FakeEngine()
    async with serving(engine) as (client, _):
        engine.before = lambda batch: 1 / 0
        assert (await client.post("/segment", content=PNG)).status_code == 500
        metrics = samples((await client.get("/metrics")).text)
    assert metrics["alignseg_engine_failures_total", "EngineError", "fake"] == 1
    assert metrics["alignseg_requests_rejected_total", "inference-failed"] == 1


async def test_clients_cannot_create_label_values() -> None:
    async with serving() as (client, _):
        for i in range(50):
            await client.get(f"/nowhere/{i}")
            await client.request(f"METHOD{i}", "/segment")
            await client.get(f"/page/{i}.js")
        page = (await client.get("/metrics")).text
    routes = {line.partition('route="')[2].partition('"')[0] for line in page.splitlines() if 'route="' in line}
    assert routes <= {"other", "/page/{name}", "/metrics"}


async def test_every_response_has_security_headers() -> None:
    async with serving() as (client, _):
        for path in ("/", "/docs", "/healthz/ready", "/nowhere"):
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert "default-src 'self'" in headers["content-security-policy"]
            assert "unsafe-eval" not in headers["content-security-policy"]
            assert "server" not in headers
