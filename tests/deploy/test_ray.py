"""What is shipped for Ray, against Serve's own schema, Kubernetes', and what the fleet really takes."""

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
WAY_IN, ENGINE = APP["deployments"]
RAY_SERVICE: dict[str, Any] = yaml.safe_load((FOLDER / "rayservice.yaml").read_text())
CLUSTER = RAY_SERVICE["spec"]["rayClusterConfig"]
CODECS, GPUS = CLUSTER["workerGroupSpecs"]
PODS = {"head": CLUSTER["headGroupSpec"], "codecs": CODECS, "gpus": GPUS}


def _settings() -> Settings:
    return Settings(**APP["args"]["settings"])


def test_serve_takes_it_and_so_does_the_builder() -> None:
    from ray.serve.schema import ServeDeploySchema

    assert ServeDeploySchema.model_validate(SERVE).applications[0].name == "alignseg"
    with pytest.raises(ValueError, match="max_ongoing_requests"):
        wrong = {**ENGINE, "max_ongoing_requests": 0}
        ServeDeploySchema.model_validate({**SERVE, "applications": [{**APP, "deployments": [wrong]}]})
    module, _, name = APP["import_path"].partition(":")
    build = getattr(import_module(module), name)
    fleet = build.__annotations__["args"](**APP["args"])
    assert set(APP["args"]["settings"]) <= set(Settings.model_fields)
    assert fleet.gpus == ENGINE["ray_actor_options"]["num_gpus"] == 1


def test_deployments_are_those_that_the_fleet_has() -> None:
    from service.ray_serve import application

    assert [WAY_IN["name"], ENGINE["name"]] == [application.WAY_IN, application.ENGINE]
    assert ENGINE["max_ongoing_requests"] == application.ONGOING
    most = WAY_IN["autoscaling_config"]["target_ongoing_requests"]
    assert most < _settings().max_in_flight  # else Serve never sees a reason to add one


def test_kuberay_deploys_the_same() -> None:
    assert yaml.safe_load(RAY_SERVICE["spec"]["serveConfigV2"])["applications"] == SERVE["applications"]


def test_kuberay_takes_it() -> None:
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
def test_kuberays_schema_refuses_what_is_wrong(inside: tuple[str | int, ...], wrong: dict[str, Any]) -> None:
    changed = copy.deepcopy(RAY_SERVICE)
    place: Any = changed
    for step in inside:
        place = place[step]
    place.update(wrong)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed, RAY_SERVICE_SCHEMA)


@pytest.mark.parametrize("name", PODS)
def test_kubernetes_takes_the_pods(name: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **PODS[name]["template"]}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    spec = pod["spec"]
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_every_deployment_finds_its_nodes() -> None:
    (codecs,) = CODECS["template"]["spec"]["containers"]
    (gpu,) = GPUS["template"]["spec"]["containers"]
    assert json.loads(json.loads(CODECS["rayStartParams"]["resources"])) == WAY_IN["ray_actor_options"]["resources"]
    assert int(codecs["resources"]["limits"]["cpu"]) >= WAY_IN["ray_actor_options"]["num_cpus"]
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == ENGINE["ray_actor_options"]["num_gpus"]
    for deployment, group in ((WAY_IN, CODECS), (ENGINE, GPUS)):
        assert deployment["autoscaling_config"]["max_replicas"] <= group["maxReplicas"]


def test_a_replica_ends_after_its_last_answer() -> None:
    settings = _settings()
    assert settings.drain_timeout_s > settings.request_timeout_ms / 1e3
    for deployment in (WAY_IN, ENGINE):
        assert deployment["graceful_shutdown_timeout_s"] >= settings.drain_timeout_s
    for group in (CODECS, GPUS):
        grace = group["template"]["spec"]["terminationGracePeriodSeconds"]
        assert grace > settings.drain_timeout_s + FLUSH_TIMEOUT_S


def test_prometheus_finds_every_way_in() -> None:
    monitor = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text())
    PodMonitor.model_validate(monitor, extra="forbid", by_name=False, by_alias=True)
    assert monitor["spec"]["selector"]["matchLabels"]["ray.io/group"] == CODECS["groupName"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (container,) = CODECS["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports[endpoint["port"]] == _settings().admin_port


@pytest.mark.parametrize("wrong", [{"portt": "admin"}, {"port": 9000}, {"interval": "15 s"}])
def test_prometheus_operator_refuses_what_is_wrong(wrong: dict[str, Any]) -> None:
    monitor = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text())
    monitor["spec"]["podMetricsEndpoints"][0].update(wrong)
    with pytest.raises(ValidationError):
        PodMonitor.model_validate(monitor, extra="forbid", by_name=False, by_alias=True)
