"""JSON schema of the part of KubeRay's RayService that deploy/ray uses; all other fields are rejected.

No package carries KubeRay's custom resource definition. Names, types, enumerations and required fields were copied
by hand from it (helm-chart/kuberay-operator/crds/ray.io_rayservices.yaml of ray-project/kuberay, commit 02a80a6).
Look up a further field there before adding it. Pods are Kubernetes' PodTemplateSpec and are checked against
Kubernetes' schema instead.
"""

from typing import Any, Final

Schema = dict[str, Any]
_TEXT: Final[Schema] = {"type": "string"}
_FLAG: Final[Schema] = {"type": "boolean"}
_INT32: Final[Schema] = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
_POD: Final[Schema] = {"type": "object"}


def _object(*required: str, **fields: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": fields, "additionalProperties": False}


_START_PARAMS: Final[Schema] = {"type": "object", "additionalProperties": _TEXT}
_HEAD: Final = _object("template", rayStartParams=_START_PARAMS, template=_POD)
_WORKERS: Final = _object(
    "groupName", "maxReplicas", "minReplicas", "template",
    groupName=_TEXT, replicas=_INT32, minReplicas=_INT32, maxReplicas=_INT32, rayStartParams=_START_PARAMS,
    template=_POD,
)  # fmt: skip
_CLUSTER: Final = _object(
    "headGroupSpec",
    rayVersion=_TEXT,
    authOptions=_object(mode={"enum": ["disabled", "token"]}, secretName=_TEXT),
    enableInTreeAutoscaling=_FLAG,
    autoscalerOptions=_object(
        version={"enum": ["v1", "v2"]},
        idleTimeoutSeconds=_INT32,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    ),
    headGroupSpec=_HEAD,
    workerGroupSpecs={"type": "array", "items": _WORKERS},
)
# The definition allows any text as `type`; the operator accepts only these.
_UPGRADE: Final = _object(type={"enum": ["NewCluster", "NewClusterWithIncrementalUpgrade", "None"]})
RAY_SERVICE: Final = _object(
    "apiVersion", "kind", "metadata", "spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayService"},
    metadata=_object("name", name=_TEXT, namespace=_TEXT, labels=_START_PARAMS, annotations=_START_PARAMS),
    spec=_object("rayClusterConfig", serveConfigV2=_TEXT, rayClusterConfig=_CLUSTER, upgradeStrategy=_UPGRADE),
)  # fmt: skip
