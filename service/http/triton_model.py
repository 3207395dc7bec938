"""The model as Triton's clients ask for it: metadata, configuration, statistics, repository index, as JSON members.

Source: Triton's protocol extensions (model configuration, statistics, model repository).
"""

from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families
from starlette.exceptions import HTTPException

from service.http import kserve_codec
from service.inference.pipeline import Pipeline
from service.model_folder.manifest import Manifest
from service.telemetry.metrics import Metrics
from service.types import CLASS_MAP

EXTENSIONS: Final = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
MODEL_CONTROL: Final = (
    "This server serves one model and loads a changed model folder by itself (ALIGNSEG_MODEL_POLL_S). Models cannot be "
    "loaded or unloaded by clients."
)
_STAGES: Final = {"queue": "queue", "compute_input": "decode", "compute_infer": "infer", "compute_output": "encode"}


def require_model(pipeline: Pipeline, name: str, version: str | None) -> Manifest:
    """The served model, if it is this one; an empty version means any. Raises HTTPException (404)."""
    manifest = pipeline.manifest
    if name != manifest.name or (version or manifest.version) != manifest.version:
        raise HTTPException(404, f"no such model; this server has {manifest.name}, version {manifest.version}")
    return manifest


def metadata(pipeline: Pipeline) -> dict[str, Any]:
    """Inputs and outputs of the model. An inference takes one of the two inputs."""
    manifest = pipeline.manifest
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": f"alignseg_{pipeline.model.runtime}",
        "inputs": kserve_codec.INPUTS,
        "outputs": [{"name": name, "datatype": "UINT8", "shape": [-1, -1, -1]} for name in _outputs(pipeline)],
    }


def config(pipeline: Pipeline) -> dict[str, Any]:
    """Triton's model configuration. max_batch_size is 0: N is a dimension of the tensors themselves."""
    return {
        "name": pipeline.manifest.name,
        "platform": f"alignseg_{pipeline.model.runtime}",
        "backend": "alignseg",
        "max_batch_size": 0,
        "input": [
            {"name": tensor["name"], "data_type": _data_type(str(tensor["datatype"])), "dims": tensor["shape"]}
            for tensor in kserve_codec.INPUTS
        ],
        "output": [{"name": name, "data_type": "TYPE_UINT8", "dims": [-1, -1, -1]} for name in _outputs(pipeline)],
    }


def statistics(pipeline: Pipeline, metrics: Metrics) -> dict[str, Any]:
    """What /metrics exports, as Triton's statistics: of all images and tiles since the start, whichever API they used.

    success: images with a response. fail: engine calls that failed. Durations are sums in nanoseconds.
    """
    name = pipeline.manifest.name
    values = _values(metrics, name)
    durations = {key: _duration(values, stage) for key, stage in _STAGES.items()}
    total_ns = sum(duration["ns"] for duration in durations.values())
    return {
        "name": name,
        "version": pipeline.manifest.version,
        "inference_count": values.get("alignseg_batch_size_sum", 0),
        "execution_count": values.get("alignseg_batch_size_count", 0),
        "inference_stats": {
            "success": {"count": durations["compute_output"]["count"], "ns": total_ns},
            "fail": {"count": values.get("alignseg_engine_failures_total", 0), "ns": 0},
            **durations,
        },
    }


def repository_index(pipeline: Pipeline) -> list[dict[str, str]]:
    """The one model."""
    manifest = pipeline.manifest
    return [{"name": manifest.name, "version": manifest.version, "state": "READY", "reason": ""}]


def _outputs(pipeline: Pipeline) -> list[str]:
    return [CLASS_MAP, *([kserve_codec.CONFIDENCE] if pipeline.model.has_confidence else [])]


def _data_type(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def _duration(values: dict[str, float], stage: str) -> dict[str, int]:
    count, seconds = values.get(f"{stage}_count", 0), values.get(f"{stage}_sum", 0.0)
    return {"count": int(count), "ns": round(seconds * 1e9)}


def _values(metrics: Metrics, model: str) -> dict[str, int | float]:
    """Sums and counts of the model: of a stage as decode_sum and decode_count, of others by the sample's name.

    From the text that /metrics exports: with several processes that is the sum of all.
    """
    values: dict[str, int | float] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.labels.get("model") != model or sample.name.endswith(("_bucket", "_created")):
                continue
            if "stage" in sample.labels:
                values[f"{sample.labels['stage']}_{sample.name.rpartition('_')[2]}"] = sample.value
            else:
                values[sample.name] = values.get(sample.name, 0) + int(sample.value)
    return values
