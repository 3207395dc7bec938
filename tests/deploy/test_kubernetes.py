"""The manifests against the schemas of Kubernetes and the Prometheus operator, and against the running server."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor
from pydantic import ValidationError

from service.server.admin_port import FLUSH_TIMEOUT_S
from service.settings import Settings, misspelt
from tests.support.fake_engine import FakeEngine, serving

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
FOREIGN = {"ServiceMonitor", "Kustomization"}  # schemas of other projects
MANIFESTS: dict[str, Any] = {path.stem: yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yaml")}
POD = MANIFESTS["deployment"]["spec"]["template"]
(SERVER,) = POD["spec"]["containers"]


@pytest.mark.parametrize("name", [name for name, manifest in MANIFESTS.items() if manifest["kind"] not in FOREIGN])
def test_manifests_fit_the_schema_of_kubernetes(name: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], kubernetes_validate.latest_version(), strict=True)


def test_the_schema_rejects_a_misspelt_field() -> None:
    wrong = {**MANIFESTS["pdb"], "spec": {"maxUnavailabel": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_the_servicemonitor_fits_its_schema_and_wrong_ones_do_not() -> None:
    strict: dict[str, Any] = {"extra": "forbid", "by_name": False, "by_alias": True}
    monitor = MANIFESTS["servicemonitor"]
    ServiceMonitor.model_validate(monitor, **strict)
    (endpoint,) = monitor["spec"]["endpoints"]
    for wrong in ({"intervall": "15s"}, {"port": 8000}, {"interval": "15 s"}):
        spec = {**monitor["spec"], "endpoints": [{**endpoint, **wrong}]}
        with pytest.raises(ValidationError):
            ServiceMonitor.model_validate({**monitor, "spec": spec}, **strict)


def test_selectors_and_ports_match_the_pods() -> None:
    labels = POD["metadata"]["labels"]
    assert MANIFESTS["service"]["spec"]["selector"] == labels
    for name in ("deployment", "pdb", "servicemonitor"):
        assert MANIFESTS[name]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["service"]["metadata"]["labels"] == labels
    assert MANIFESTS["hpa"]["spec"]["scaleTargetRef"]["name"] == MANIFESTS["deployment"]["metadata"]["name"]
    (port,) = MANIFESTS["service"]["spec"]["ports"]
    assert port["targetPort"] == SERVER["ports"][0]["name"]
    assert MANIFESTS["servicemonitor"]["spec"]["endpoints"][0]["port"] == port["name"]
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(MANIFESTS["kustomization"]["resources"]) == files


def test_a_pod_stops_only_after_its_last_response() -> None:
    environment = {entry["name"]: entry["value"] for entry in SERVER["env"]}
    assert misspelt(environment) == []
    settings = Settings(**{name.removeprefix("ALIGNSEG_").lower(): value for name, value in environment.items()})  # type: ignore[arg-type]
    assert settings.drain_timeout_s > settings.request_timeout_ms / 1e3
    pre_stop = SERVER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["spec"]["terminationGracePeriodSeconds"] > pre_stop + settings.drain_timeout_s + FLUSH_TIMEOUT_S


def test_every_container_is_hardened_and_limited() -> None:
    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True
    for container in (SERVER, *POD["spec"]["initContainers"]):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"]["drop"] == ["ALL"]
    assert SERVER["resources"]["limits"]["nvidia.com/gpu"] == 1


async def test_probes_and_the_scaling_metric_exist() -> None:
    (metric,) = MANIFESTS["hpa"]["spec"]["metrics"]
    async with serving(FakeEngine()) as (client, _):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert (await client.get(SERVER[probe]["httpGet"]["path"])).status_code == 200
        (endpoint,) = MANIFESTS["servicemonitor"]["spec"]["endpoints"]
        assert metric["pods"]["metric"]["name"] in (await client.get(endpoint["path"])).text
