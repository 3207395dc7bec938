"""The stages of a job, each from one Arrow table of a few rows to another: read, segment, encode, write.

An image that fails does not affect the others of its table: its row carries the error through the later stages.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow as pa

from alignseg_serve.ray_job import MaskFormat, inputs, results
from alignseg_serve.ray_job.storage import open_path
from alignseg_serve.segmentation.image_files import output_name
from service.batching.fault_isolation import FaultIsolatingEngine
from service.errors import AlignSegError, EngineError
from service.imaging.letterbox import unletterbox_ids
from service.imaging.model_input import ImageLimits, open_image
from service.imaging.tile_plan import TileMode, plan_tiles
from service.imaging.tiling import TileMerger
from service.model_folder.manifest import Manifest
from service.rendering import images
from service.rendering.class_stats import summarize
from service.rendering.rle import encode_rle
from service.settings import Settings
from service.types import Engine, PreparedImage, UInt8Array

EngineFactory = Callable[[Settings, Manifest], Engine]
Row = dict[str, Any]
_SIZES: Final = ("bucket", "content", "original")  # (height, width) each; see PreparedImage
_TILE: Final[TileMode] = "auto"  # as `alignseg segment` without Ray
_SIZE: Final = pa.list_(pa.int32(), 2)
PREPARED: Final = pa.schema([
    ("key", pa.string()), ("error", pa.string()), ("pixels", pa.large_binary()), *((name, _SIZE) for name in _SIZES),
])  # fmt: skip
ENCODED: Final = pa.schema([("error", pa.string()), ("png", pa.large_binary()), *results.PICTURE_SCHEMA])
SUMMARY: Final = pa.schema([
    ("written", pa.int64()), ("failed", pa.list_(pa.struct(results.FAILED_SCHEMA))), ("pixels", pa.list_(pa.int64())),
])  # fmt: skip


class Read:
    """Reads, decodes and resizes images. Runs as a task: it needs CPU cores and no engine."""

    def __init__(self, manifest: Manifest, limits: ImageLimits) -> None:
        self._buckets = manifest.input.buckets
        self._limits = limits

    def __call__(self, rows: pa.Table) -> pa.Table:
        """(key, source, data) -> PREPARED."""
        return pa.Table.from_pylist([self._read(row) for row in rows.to_pylist()], schema=PREPARED)

    def _read(self, row: Row) -> Row:
        try:
            _, model_input = open_image(inputs.read(row), self._buckets, self._limits, tile=_TILE)
        except (AlignSegError, OSError) as error:
            return {"key": row["key"], "error": str(error)}
        tensors = [model_input.tensor(index) for index in range(model_input.count)]
        sizes = {"bucket": tensors[0].shape[:2], "content": model_input.input_size, "original": model_input.original}
        return {"key": row["key"], "pixels": b"".join(tensor.tobytes() for tensor in tensors), **sizes}


class Segment:
    """Runs the model. An actor that owns an engine."""

    def __init__(self, settings: Settings, manifest: Manifest, engine_factory: EngineFactory) -> None:
        self._engine = engine_factory(settings, manifest)
        self._isolating = FaultIsolatingEngine(self._engine)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """PREPARED -> PREPARED, with class ids in place of pixels. Raises DeviceLost, which ends the job."""
        table = rows.to_pylist()
        by_bucket: dict[tuple[int, ...], list[tuple[Row, UInt8Array]]] = defaultdict(list)
        for row in table:
            if row["error"] is None:
                tensors = _array(row["pixels"], (-1, *row["bucket"], 3))
                by_bucket[tuple(row["bucket"])] += [(row, tensor) for tensor in tensors]
                row["pixels"] = b""
        max_batch = self._engine.max_batch
        for same_size in by_bucket.values():
            for start in range(0, len(same_size), max_batch):
                self._infer(same_size[start : start + max_batch])
        return pa.Table.from_pylist(table, schema=PREPARED)

    def _infer(self, batch: list[tuple[Row, UInt8Array]]) -> None:
        """Append each tensor's class ids to the pixels of its row, or set the row's error."""
        outcomes = self._isolating.infer([tensor for _, tensor in batch], False)
        if self._isolating.lost is not None:
            raise self._isolating.lost
        for (row, _), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, EngineError):
                row.update(error=str(outcome), pixels=None)
            elif row["error"] is None:  # otherwise another tile of the image has failed
                row["pixels"] += outcome.ids.tobytes()


class Encode:
    """Resizes class ids to the image's own size, encodes the mask and counts the pixels of each class."""

    def __init__(self, manifest: Manifest, limits: ImageLimits, masks: MaskFormat) -> None:
        self._manifest = manifest
        self._limits = limits
        self._masks = masks

    def __call__(self, rows: pa.Table) -> pa.Table:
        """PREPARED -> ENCODED."""
        return pa.Table.from_pylist([self._encode(row) for row in rows.to_pylist()], schema=ENCODED)

    def _encode(self, row: Row) -> Row:
        if row["error"] is not None:
            return {"picture": row["key"], "error": row["error"]}
        try:
            return self._result(row["key"], self._class_map(row))
        except AlignSegError as error:  # a class id that the model does not have
            return {"picture": row["key"], "error": str(error)}

    def _class_map(self, row: Row) -> UInt8Array:
        """(height, width) class ids at the image's own size."""
        maps = _array(row["pixels"], (-1, *row["bucket"]))
        content, original = tuple(row["content"]), tuple(row["original"])
        plan = plan_tiles(original, self._manifest.input.buckets, _TILE, self._limits.max_tiles)  # as `Read` did
        if plan is None:
            return unletterbox_ids(maps[0], PreparedImage(maps[0], content, original))
        return TileMerger(plan).assemble_ids(list(maps))

    def _result(self, key: str, ids: UInt8Array) -> Row:
        present = summarize(ids, self._manifest)
        classes: list[Row] = [{"id": entry.id, "name": entry.name, "pixels": entry.pixels} for entry in present]
        result: Row = {"picture": key, "height": ids.shape[0], "width": ids.shape[1], "classes": classes}
        if self._masks == "png":
            png = images.indexed_png(ids, self._manifest.palette, names=self._manifest.names)
            return result | {"png": png, "mask": f"{results.MASKS}/{mask_path(key)}"}
        masks = encode_rle(ids, [entry.id for entry in present])
        for entry in classes:
            entry["counts"] = masks[entry["id"]]["counts"]
        return result


class Write:
    """Writes masks, then the rows that record them."""

    def __init__(self, out: str, classes: int) -> None:
        self._out = out
        self._classes = classes

    def __call__(self, rows: pa.Table) -> pa.Table:
        """ENCODED -> SUMMARY, one row. Raises OSError when a file can't be written, which ends the job."""
        out, table = open_path(self._out), rows.to_pylist()
        failed = [{"picture": row["picture"], "reason": row["error"]} for row in table if row["error"] is not None]
        done = [row for row in table if row["error"] is None]
        for row in done:
            if row["png"] is not None:
                (out / row["mask"]).write(row["png"])
        results.record(out, done, failed)
        pixels: Counter[int] = Counter()
        for row in done:
            pixels.update({entry["id"]: entry["pixels"] for entry in row["classes"]})
        summary = {"written": len(done), "failed": failed, "pixels": [pixels[n] for n in range(self._classes)]}
        return pa.Table.from_pylist([summary], schema=SUMMARY)


def mask_path(key: str) -> str:
    """The path of an image's mask below the folder of masks."""
    folder, slash, name = key.rpartition("/")
    return folder + slash + output_name(name, ".png")


def _array(data: bytes, shape: tuple[int, ...]) -> UInt8Array:
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
