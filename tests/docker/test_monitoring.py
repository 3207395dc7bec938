"""Alerts, dashboard, autoscaler and documents name only metrics and labels that a running server exposes."""

import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.errors import EngineError
from tests.support.fake_engine import FakeEngine, encoded, serving, striped

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docker" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "alignseg.json").read_text())
RULES = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
EXPRESSIONS += [rule["expr"] for rule in RULES]
DOCUMENTS = (
    "README.md",
    "docker/README.md",
    "deploy/kubernetes/README.md",
    "deploy/kubernetes/hpa.yaml",
    "docs/operations.md",
)
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
ADDED_BY_PROMETHEUS = {"instance", "job"}
Labels = dict[str, set[str]]


class FailsOnBlack(FakeEngine):
    """Fails for black images, so that failures have samples too."""

    def infer(self, batch: Any, with_confidence: bool = False) -> Any:
        if not batch.any() and len(self.batches) > 2:  # not while warming up
            raise EngineError("black image")
        return super().infer(batch, with_confidence)


@pytest.fixture
async def exposed() -> AsyncGenerator[Labels, None]:
    """The labels of each series by its name, after a success, a rejection and an engine failure."""
    async with serving(FailsOnBlack()) as (client, _):
        for body in (encoded(striped()), b"no image", encoded(striped() * 0)):
            await client.post("/segment", content=body, headers={"Content-Type": "application/octet-stream"})
        text = (await client.get("/metrics")).text
    labels: Labels = {"up": set(ADDED_BY_PROMETHEUS)}
    for family in text_string_to_metric_families(text):
        for suffix in SUFFIXES.get(family.type, ("",)):
            series = family.name + suffix
            labels[series] = {name for s in family.samples if s.name == series for name in s.labels}
            labels[series] |= ADDED_BY_PROMETHEUS
    yield labels


def test_every_expression_uses_exposed_series_and_labels(exposed: Labels) -> None:
    for expression in EXPRESSIONS:
        series = set(re.findall(r"\b(?:alignseg_\w+|process_\w+|up)\b", expression))
        assert series and series <= exposed.keys(), expression
        known = set.intersection(*(exposed[name] for name in series))
        used = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(",")}
        used |= {label for group in re.findall(r"\{([^}]*)\}", expression) for label in re.findall(r"(\w+)=", group)}
        assert used <= known, expression


def test_every_metric_of_the_documents_is_exposed(exposed: Labels) -> None:
    families = exposed.keys() | {re.sub("_(bucket|sum|count)$", "", name) for name in exposed}
    for name in DOCUMENTS:
        metrics = set(re.findall(r"\balignseg_[a-z_]+\b", (ROOT / name).read_text())) - {"alignseg_serve"}
        assert metrics <= families, name
    assert "alignseg_estimated_drain_seconds" in (ROOT / "deploy/kubernetes/hpa.yaml").read_text()


def test_labels_in_texts_are_those_of_the_expression(exposed: Labels) -> None:
    for rule in RULES:
        used = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        by = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
        (kept,) = [{label.strip() for label in by[0].split(",")}] if by else [ADDED_BY_PROMETHEUS]
        assert used <= kept, rule["alert"]
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]
        assert rule["labels"]["severity"] in {"warning", "critical"}


def test_the_alerts_are_documented() -> None:
    readme = (ROOT / "docker" / "README.md").read_text()
    assert [rule["alert"] for rule in RULES] == re.findall(
        r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", readme.split("## Alerts")[1], re.M
    )
    operations = (ROOT / "docs" / "operations.md").read_text().split("## Alerts")[1].split("## ")[0]
    assert [rule["alert"] for rule in RULES] == re.findall(r"^\| `(\w+)` \|", operations, re.M)


def test_prometheus_and_grafana_read_what_compose_mounts() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    mounts = [volume.split(":") for volume in compose["services"]["grafana"]["volumes"]]
    for source, *_ in mounts:
        assert not source.startswith("./") or (ROOT / source).exists()
    provider = yaml.safe_load((MONITORING / "grafana/provisioning/dashboards/alignseg.yml").read_text())["providers"][0]
    assert provider["options"]["path"] in {target for _, target, *_ in mounts}
    sources = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    scrape = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"][0]
    hosts = {target.split(":")[0] for target in scrape["static_configs"][0]["targets"]}
    assert hosts <= set(compose["services"])
    assert scrape["job_name"] == "alignseg"  # named in the alert ServerDown
