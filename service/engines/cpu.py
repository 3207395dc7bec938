"""The engines on the CPU, and which of them is the fastest on this processor."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from service.engines import reference_check
from service.engines.onnxruntime.engine import ROLE, OnnxRuntimeEngine
from service.engines.openvino import compile_cache, quantization
from service.engines.openvino import engine as openvino_engine
from service.engines.openvino.engine import OpenVinoEngine, Precision
from service.engines.openvino.processor import Features
from service.engines.openvino.speed_record import SpeedRecord
from service.engines.reference_check import ReferenceCheck
from service.errors import EngineError, EngineUnavailable, ManifestError
from service.model_folder import manifest as manifests
from service.model_folder.manifest import Manifest
from service.settings import Settings
from service.types import Engine

ROUNDS: Final = 8  # of a measurement
_CANNOT_SERVE: Final = (EngineUnavailable, ManifestError, EngineError)
OpenOnCpu = Callable[[Settings, Manifest, Path], Engine]


def fastest(settings: Settings, manifest: Manifest, onnx: Path, skipped: list[str]) -> Engine:
    """The fastest engine that agrees with the reference, or the reference itself.

    skipped: gets a line for each faster engine that can't serve, and for each that was measured to be slower.
    """
    reference, check = _reference(settings, manifest, onnx)
    for name in _by_speed(settings, manifest, onnx, check, skipped):
        try:
            engine = OPEN[name](settings, manifest, onnx)
            check.require_agreement(engine)
        except _CANNOT_SERVE as error:
            skipped.append(why_skipped(name, error))
        else:
            if reference is not None:
                reference.close()
            return engine
    return reference or _onnxruntime(settings, manifest, onnx)


def load_check(settings: Settings, manifest: Manifest, onnx: Path) -> ReferenceCheck:
    """What engines must agree with: of the model folder, or computed by ONNX Runtime if that is older."""
    reference, check = _reference(settings, manifest, onnx)
    if reference is not None:
        reference.close()
    return check


def why_skipped(name: str, error: Exception) -> str:
    """An engine's part of the log line that says which one serves."""
    return f"{name} ({str(error).removesuffix('.')})"


def _reference(settings: Settings, manifest: Manifest, onnx: Path) -> tuple[Engine | None, ReferenceCheck]:
    if reference_check.ROLE in manifest.files:
        return None, ReferenceCheck.load(manifests.verified_file(settings.model, manifest, reference_check.ROLE))
    reference = _onnxruntime(settings, manifest, onnx)  # a folder written before exports contained the check
    return reference, ReferenceCheck.from_reference(reference, manifest.input.buckets[0])


def _by_speed(
    settings: Settings, manifest: Manifest, onnx: Path, check: ReferenceCheck, skipped: list[str]
) -> Sequence[str]:
    """The names of OpenVINO's engines, the fastest first.

    With bfloat16 the order is known: int8, bf16, float32. Without it int8 may be twice as fast as float32 (VNNI), a
    third faster (AVX2) or slower, so both are measured, and the result is kept.
    """
    try:
        features = openvino_engine.features()
    except EngineUnavailable:
        return FASTEST_FIRST
    if features.bfloat16 or not features.avx2 or quantization.ROLE not in manifest.files:
        return FASTEST_FIRST
    times = _times(settings, manifest, onnx, check, features)
    if set(times) != set(_MEASURED):  # one of them can't serve: trying them in order gives the reason
        return FASTEST_FIRST
    order = sorted(times, key=times.__getitem__)
    if order[0] != _MEASURED[0]:
        skipped.append(f"{order[1]} ({times[order[1]]:.1f} ms an image, {order[0]} {times[order[0]]:.1f} ms)")
    return order


def _times(
    settings: Settings, manifest: Manifest, onnx: Path, check: ReferenceCheck, features: Features
) -> Mapping[str, float]:
    """Milliseconds of an inference, from the record or measured now."""
    files = [manifest.files[role].sha256 for role in (ROLE, quantization.ROLE)]
    inputs = features, files, manifest.input.buckets[0], settings.intra_op_threads
    record = openvino_engine.in_short_lived_thread(SpeedRecord, compile_cache.default_folder(), *inputs)
    times = record.load()
    if times is None or set(times) != set(_MEASURED):
        times = _measured(settings, manifest, onnx, check)
        if set(times) == set(_MEASURED):
            record.store(times)
    return times


def _measured(settings: Settings, manifest: Manifest, onnx: Path, check: ReferenceCheck) -> dict[str, float]:
    """Milliseconds of the fastest of several inferences in turns, of each engine that can serve."""
    one_size = manifest.model_copy(
        update={"input": manifest.input.model_copy(update={"buckets": manifest.input.buckets[:1]})}
    )
    times: dict[str, float] = {}
    with ExitStack() as opened:
        engines: dict[str, Engine] = {}
        for name in _MEASURED:
            try:
                engine = OPEN[name](settings, one_size, onnx)
                opened.callback(engine.close)
                check.require_agreement(engine)
            except _CANNOT_SERVE:
                continue
            engines[name] = engine
        for _ in range(ROUNDS):
            for name, engine in engines.items():
                began = time.perf_counter()
                engine.infer(check.image)
                ms = 1e3 * (time.perf_counter() - began)
                times[name] = min(ms, times.get(name, ms))
    return times


def _openvino(settings: Settings, manifest: Manifest, onnx: Path, precision: Precision = "float32") -> Engine:
    ranges = None
    if precision == "int8":
        if quantization.ROLE not in manifest.files:
            raise EngineUnavailable("the model has no int8 ranges; measure them with `alignseg export --calibration`")
        ranges = quantization.load(manifests.verified_file(settings.model, manifest, quantization.ROLE))
    return OpenVinoEngine(
        onnx,
        precision=precision,
        ranges=ranges,
        threads=settings.intra_op_threads,
        sizes=manifest.input.buckets,
        cache=compile_cache.default_folder(),
    )


def _onnxruntime(settings: Settings, manifest: Manifest, onnx: Path) -> Engine:
    return OnnxRuntimeEngine(onnx, intra_op_threads=settings.intra_op_threads)


OPEN: dict[str, OpenOnCpu] = {
    "openvino-int8": partial(_openvino, precision="int8"),
    "openvino-bf16": partial(_openvino, precision="bf16"),
    "openvino-cpu": _openvino,
    "onnxruntime-cpu": _onnxruntime,
}
FASTEST_FIRST: Final = ("openvino-int8", "openvino-bf16", "openvino-cpu")
_MEASURED: Final = ("openvino-int8", "openvino-cpu")
