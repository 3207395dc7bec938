"""deploy/ray against the schemas of Ray Serve, KubeRay and Kubernetes, and against the application itself."""

import copy
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.prometheus_operator.v1 import PodMonitor
from pydantic import ValidationError

from service.server.admin_port import FLUSH_TIMEOUT_S
from service.settings import Settings
from tests.deploy.kuberay import RAY_SERVICE as RAY_SERVICE_SCHEMA

pytest.importorskip("ray")

FOLDER = Path(__file__).parents[2] / "deploy" / "ray"
SERVE: dict[str, Any] = yaml.safe_load((FOLDER / "serve.yaml").read_text())
(APP,) = SERVE["applications"]
INGRESS, ENGINE = APP["deployments"]
RAY_SERVICE: dict[str, Any] = yaml.safe_load((FOLDER / "rayservice.yaml").read_text())
CLUSTER = RAY_SERVICE["spec"]["rayClusterConfig"]
CODECS, GPUS = CLUSTER["workerGroupSpecs"]
PODS = {"head": CLUSTER["headGroupSpec"], "codecs": CODECS, "gpus": GPUS}


def _settings() -> Settings:
    return Settings(**APP["args"]["settings"])


def test_ray_serve_and_the_application_accept_serve_yaml() -> None:
    from ray.serve.schema import ServeDeploySchema

    assert ServeDeploySchema.model_validate(SERVE).applications[0].name == "alignseg"
    with pytest.raises(ValueError, match="max_ongoing_requests"):
        wrong = {**ENGINE, "max_ongoing_requests": 0}
        ServeDeploySchema.model_validate({**SERVE, "applications": [{**APP, "deployments": [wrong]}]})
    module, _, name = APP["import_path"].partition(":")
    build = getattr(import_module(module), name)
    config = build.__annotations__["args"](**APP["args"])
    assert set(APP["args"]["settings"]) <= set(Settings.model_fields)
    assert config.gpus == ENGINE["ray_actor_options"]["num_gpus"] == 1


def test_deployments_match_the_application() -> None:
    from service.ray_serve import application

    assert [INGRESS["name"], ENGINE["name"]] == [application.INGRESS, application.ENGINE]
    assert ENGINE["max_ongoing_requests"] == application.MAX_ONGOING_REQUESTS
    target = INGRESS["autoscaling_config"]["target_ongoing_requests"]
    assert target < _settings().max_in_flight  # else Ray Serve never adds an ingress replica


def test_rayservice_yaml_contains_serve_yaml() -> None:
    assert yaml.safe_load(RAY_SERVICE["spec"]["serveConfigV2"])["applications"] == SERVE["applications"]


def test_kuberay_accepts_rayservice_yaml() -> None:
    jsonschema.validate(RAY_SERVICE, RAY_SERVICE_SCHEMA)


@pytest.mark.parametrize(
    ("inside", "wrong"),
    [
        (("spec",), {"serveConfig": "x"}),
        (("spec",), {"rayClusterConfig": None}),
        (("spec", "upgradeStrategy"), {"type": "BlueGreen"}),
        (("spec", "rayClusterConfig", "authOptions"), {"mode": "tokens"}),
        (("spec", "rayClusterConfig", "autoscalerOptions"), {"idleTimeoutSeconds": "600"}),
        (("spec", "rayClusterConfig"), {"enableInTreeAutoscaler": True}),
        (("spec", "rayClusterConfig", "headGroupSpec", "rayStartParams"), {"num-cpus": 0}),
        (("spec", "rayClusterConfig", "workerGroupSpecs", 0), {"minReplicas": "2"}),
        (("spec", "rayClusterConfig", "workerGroupSpecs", 1), {"maxReplica": 2}),
    ],
)
def test_kuberay_schema_rejects_invalid_fields(inside: tuple[str | int, ...], wrong: dict[str, Any]) -> None:
    changed = copy.deepcopy(RAY_SERVICE)
    target: Any = changed
    for step in inside:
        target = target[step]
    target.update(wrong)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed, RAY_SERVICE_SCHEMA)


@pytest.mark.parametrize("name", PODS)
def test_kubernetes_accepts_the_pods(name: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **PODS[name]["template"]}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    spec = pod["spec"]
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_every_deployment_fits_a_worker_group() -> None:
    (codecs,) = CODECS["template"]["spec"]["containers"]
    (gpu,) = GPUS["template"]["spec"]["containers"]
    assert json.loads(json.loads(CODECS["rayStartParams"]["resources"])) == INGRESS["ray_actor_options"]["resources"]
    assert int(codecs["resources"]["limits"]["cpu"]) >= INGRESS["ray_actor_options"]["num_cpus"]
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == ENGINE["ray_actor_options"]["num_gpus"]
    for deployment, group in ((INGRESS, CODECS), (ENGINE, GPUS)):
        assert deployment["autoscaling_config"]["max_replicas"] <= group["maxReplicas"]


def test_a_replica_ends_after_its_last_response() -> None:
    settings = _settings()
    assert settings.drain_timeout_s > settings.request_timeout_ms / 1e3
    for deployment in (INGRESS, ENGINE):
        assert deployment["graceful_shutdown_timeout_s"] >= settings.drain_timeout_s
    for group in (CODECS, GPUS):
        grace = group["template"]["spec"]["terminationGracePeriodSeconds"]
        assert grace > settings.drain_timeout_s + FLUSH_TIMEOUT_S


def test_podmonitor_selects_every_ingress_pod() -> None:
    monitor = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text())
    PodMonitor.model_validate(monitor, extra="forbid", by_name=False, by_alias=True)
    assert monitor["spec"]["selector"]["matchLabels"]["ray.io/group"] == CODECS["groupName"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (container,) = CODECS["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports[endpoint["port"]] == _settings().admin_port


@pytest.mark.parametrize("wrong", [{"portt": "admin"}, {"port": 9000}, {"interval": "15 s"}])
def test_prometheus_operator_rejects_invalid_fields(wrong: dict[str, Any]) -> None:
    monitor = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text())
    monitor["spec"]["podMetricsEndpoints"][0].update(wrong)
    with pytest.raises(ValidationError):
        PodMonitor.model_validate(monitor, extra="forbid", by_name=False, by_alias=True)
