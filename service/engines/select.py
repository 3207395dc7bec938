"""Which runtime serves a model, and why."""

import logging

from service import manifest as manifests
from service.contracts import Engine
from service.engines.onnx_runtime import ROLE, OnnxRuntimeEngine
from service.engines.openvino import OpenVinoEngine
from service.manifest import Manifest
from service.settings import Settings

log = logging.getLogger("alignseg.engine")


def open_engine(settings: Settings, manifest: Manifest) -> Engine:
    """Load the model into the runtime that the settings name, or into the best one there is.

    Raises EngineUnavailable or ManifestError.
    """
    asked = settings.engine
    why = f"ALIGNSEG_ENGINE={asked}" if asked != "auto" else "auto: it runs everywhere"
    path = manifests.verified_file(settings.model, manifest, ROLE)
    engine: Engine
    if asked == "openvino-cpu":
        engine = OpenVinoEngine(path, threads=settings.intra_op_threads)
    else:
        engine = OnnxRuntimeEngine(path, intra_op_threads=settings.intra_op_threads)
    log.info("%s serves %s %s from %s (%s)", engine.name, manifest.name, manifest.version, path, why)
    return engine
