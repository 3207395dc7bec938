"""What is done to pictures, stage by stage, in Arrow tables of a few rows: read, segment, encode, write.

No stage lets one picture fail its neighbours: from where it fails on, it is a row with an error.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

from alignseg_serve.ray_job import inputs, results
from alignseg_serve.ray_job.storage import place
from service.batching.fault_isolation import FaultIsolatingEngine
from service.errors import AlignSegError, EngineError
from service.imaging.letterbox import unletterbox
from service.imaging.model_input import ImageLimits, SingleInput, open_image
from service.model_folder.manifest import Manifest
from service.rendering import images
from service.rendering.class_stats import summarize
from service.rendering.rle import encode_rle
from service.settings import Settings
from service.types import Engine, PreparedImage, UInt8Array

Masks = Literal["png", "rle"]
EngineFactory = Callable[[Settings, Manifest], Engine]
Row = dict[str, Any]
_SIZES: Final = ("bucket", "content", "original")
_PAIR: Final = pa.list_(pa.int32(), 2)
SEEN: Final = pa.schema([
    ("key", pa.string()), ("error", pa.string()), ("pixels", pa.large_binary()), *((name, _PAIR) for name in _SIZES),
])  # fmt: skip
ENCODED: Final = pa.schema([("error", pa.string()), ("png", pa.large_binary()), *results.PICTURE_SCHEMA])
TOLD: Final = pa.schema([
    ("written", pa.int64()), ("failed", pa.list_(pa.struct(results.FAILED_SCHEMA))), ("pixels", pa.list_(pa.int64())),
])  # fmt: skip


class Read:
    """Keys -> pictures in their buckets. A task of its own, since decoding needs cores and no engine."""

    def __init__(self, manifest: Manifest, max_pixels: int) -> None:
        self._buckets = manifest.input.buckets
        self._limits = ImageLimits(max_pixels)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """key, source, data -> SEEN."""
        return pa.Table.from_pylist([self._one(row) for row in rows.to_pylist()], schema=SEEN)

    def _one(self, row: Row) -> Row:
        try:
            _, view = open_image(inputs.read(row), self._buckets, self._limits)
        except (AlignSegError, OSError) as error:
            return {"key": row["key"], "error": str(error)}
        assert isinstance(view, SingleInput)  # noqa: S101 - others come of tile=True alone
        prepared = view.prepared
        sizes = {name: getattr(prepared, name) for name in _SIZES}
        return {"key": row["key"], "pixels": prepared.pixels.tobytes(), **sizes}


class Segment:
    """Pictures -> class ids, all in their buckets. An actor that owns an engine."""

    def __init__(self, settings: Settings, manifest: Manifest, engine_factory: EngineFactory) -> None:
        self._engine = engine_factory(settings, manifest)
        self._attempts = FaultIsolatingEngine(self._engine)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """SEEN -> SEEN, with ids for pixels. Raises DeviceLost, which ends the job: no picture is at fault."""
        table = rows.to_pylist()
        by_bucket: dict[tuple[int, ...], list[Row]] = defaultdict(list)
        for row in table:
            if row["error"] is None:
                by_bucket[tuple(row["bucket"])].append(row)
        most = self._engine.max_batch
        for bucket, alike in by_bucket.items():
            for start in range(0, len(alike), most):
                self._infer(bucket, alike[start : start + most])
        return pa.Table.from_pylist(table, schema=SEEN)

    def _infer(self, bucket: tuple[int, ...], batch: list[Row]) -> None:
        outcomes = self._attempts.infer([_array(row["pixels"], (*bucket, 3)) for row in batch], False)
        if self._attempts.lost is not None:
            raise self._attempts.lost
        for row, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, EngineError):
                row.update(error=str(outcome), pixels=None)
            else:
                row["pixels"] = outcome.ids.tobytes()


class Encode:
    """Class ids in a bucket -> a mask at the picture's own size, and the area of each class."""

    def __init__(self, manifest: Manifest, masks: Masks) -> None:
        self._manifest = manifest
        self._masks = masks

    def __call__(self, rows: pa.Table) -> pa.Table:
        """SEEN -> ENCODED."""
        return pa.Table.from_pylist([self._one(row) for row in rows.to_pylist()], schema=ENCODED)

    def _one(self, row: Row) -> Row:
        if row["error"] is not None:
            return {"picture": row["key"], "error": row["error"]}
        try:
            return self._encoded(row["key"], _restored(row))
        except AlignSegError as error:  # an id that no class has
            return {"picture": row["key"], "error": str(error)}

    def _encoded(self, key: str, ids: UInt8Array) -> Row:
        present = summarize(ids, self._manifest)
        found: Row = {"picture": key, "height": ids.shape[0], "width": ids.shape[1]}
        found["classes"] = [{"id": one.id, "name": one.name, "pixels": one.pixels} for one in present]
        if self._masks == "png":
            png = images.indexed_png(ids, self._manifest.palette, names=self._manifest.names)
            return found | {"png": png, "mask": f"{results.MASKS}/{key}.png"}
        masks = encode_rle(ids, [one.id for one in present])
        for told in found["classes"]:
            told["counts"] = masks[told["id"]]["counts"]
        return found


class Write:
    """Masks and the ledger into OUT, in this order."""

    def __init__(self, out: str, classes: int) -> None:
        self._out = out
        self._classes = classes

    def __call__(self, rows: pa.Table) -> pa.Table:
        """ENCODED -> TOLD, one row. Raises OSError when nothing can be written: that ends the job."""
        out, table = place(self._out), rows.to_pylist()
        failed = [{"picture": row["picture"], "reason": row["error"]} for row in table if row["error"] is not None]
        done = [row for row in table if row["error"] is None]
        for row in done:
            if row["png"] is not None:
                (out / row["mask"]).write(row["png"])
        results.record(out, done, failed)
        pixels: Counter[int] = Counter()
        for row in done:
            pixels.update({one["id"]: one["pixels"] for one in row["classes"]})
        told = {"written": len(done), "failed": failed, "pixels": [pixels[n] for n in range(self._classes)]}
        return pa.Table.from_pylist([told], schema=TOLD)


def _array(data: bytes, shape: tuple[int, ...]) -> UInt8Array:
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _restored(row: Row) -> UInt8Array:
    ids = _array(row["pixels"], tuple(row["bucket"]))
    (content, original) = (tuple(row[name]) for name in _SIZES[1:])
    return unletterbox(ids, PreparedImage(ids, content, original))
