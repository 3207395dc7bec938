"""The results of a job, which are also the record of what is done.

OUT/pictures/*.parquet has a row for each segmented image, written after its mask. Its `fingerprint` is that of the
image's file, or of the Parquet file, as it was then. OUT/failed/*.parquet lists images
that failed; the next run tries them again. A file is named by a hash of the keys in it, so that a task which Ray
repeats overwrites its file.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from alignseg_serve.ray_job.storage import StoragePath
from service.errors import AlignSegError

PICTURES: Final = "pictures"
FAILED: Final = "failed"
MASKS: Final = "masks"
_JOB: Final = "job.json"
Hashes = npt.NDArray[np.uint64]

CLASS: Final = pa.struct([("id", pa.uint8()), ("name", pa.string()), ("pixels", pa.int64()), ("counts", pa.string())])
PICTURE_SCHEMA: Final = pa.schema([
    ("picture", pa.string()), ("height", pa.int32()), ("width", pa.int32()), ("mask", pa.string()),
    ("classes", pa.list_(CLASS)), ("fingerprint", pa.string()),
])  # fmt: skip
FAILED_SCHEMA: Final = pa.schema([("picture", pa.string()), ("reason", pa.string())])


def hash_of(key: str) -> int:
    """64-bit hash of a key. Among ten million images the probability of a collision is 3 in a million."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def begin(out: StoragePath, job: dict[str, Any], *, overwrite: bool) -> Hashes:
    """Prepare the folder for a run. Returns sorted hashes of the keys that are done: 8 bytes per image.

    job: its model, source and mask format. overwrite: delete earlier results.
    Raises AlignSegError when the folder has the results of another job.
    """
    description = out / _JOB
    if overwrite:
        for name in (PICTURES, FAILED, MASKS):
            (out / name).clear()
    elif description.is_file:
        _require_same_job(out, orjson.loads(description.read()), job)
    description.write(orjson.dumps(job))
    (out / FAILED).clear()  # failed images are tried again
    return done_hashes(out)


def _require_same_job(out: StoragePath, earlier: dict[str, Any], job: dict[str, Any]) -> None:
    changed = [name for name in job if earlier.get(name, job[name]) != job[name]]  # older versions noted less
    if changed:
        changes = ", ".join(f"{name}: {earlier[name]} before, {job[name]} now" for name in changed)
        raise AlignSegError(
            f"{out.path} has the results of another job ({changes}). Use another folder, or --overwrite to delete them."
        )


def forget_replaced(out: StoragePath, current: Iterable[tuple[str, str]], file_of: Callable[[str], str]) -> int:
    """Remove the rows of images whose file was replaced since. Returns how many; they are no longer done.

    current: (file, fingerprint) of the source as it is now. file_of: the file of a key.
    """
    files, unchanged = array("Q"), array("Q")  # hashes, as there may be millions
    for file, fingerprint in current:
        files.append(hash_of(file))
        unchanged.append(hash_of(f"{file}\0{fingerprint}"))
    present, same = _sorted(files), _sorted(unchanged)

    def is_replaced(row: dict[str, Any]) -> bool:
        file, fingerprint = file_of(row["picture"]), row.get("fingerprint")  # older versions recorded none
        return fingerprint is not None and is_done(present, file) and not is_done(same, f"{file}\0{fingerprint}")

    return sum(_remove_rows(path, is_replaced) for path in _tables(out))


def _remove_rows(path: StoragePath, is_removed: Callable[[dict[str, Any]], bool]) -> int:
    """Rewrite a file of results without some rows. Returns how many were removed."""
    if not any(is_removed(row) for row in _read(path, ["picture", "fingerprint"]).to_pylist()):
        return 0
    rows = _read(path).to_pylist()
    kept = [row for row in rows if not is_removed(row)]
    if kept:
        _write(path, kept, PICTURE_SCHEMA)
    else:
        path.delete()
    return len(rows) - len(kept)


def done_hashes(out: StoragePath) -> Hashes:
    """Sorted hashes of the keys of all images that are done."""
    return _sorted(array("Q", (hash_of(key) for key in keys(out))))


def _sorted(hashes: "array[int]") -> Hashes:
    return np.sort(np.frombuffer(hashes, dtype=np.uint64)) if hashes else np.empty(0, dtype=np.uint64)


def is_done(done: Hashes, key: str) -> bool:
    """Whether the key's hash is in `done`, as returned by `begin`."""
    key_hash = np.uint64(hash_of(key))
    index = int(np.searchsorted(done, key_hash))
    return index < len(done) and bool(done[index] == key_hash)


def keys(out: StoragePath) -> Iterator[str]:
    """The keys of all images that are done."""
    for path in _tables(out):
        yield from _read(path, ["picture"]).column(0).to_pylist()


def _tables(out: StoragePath) -> list[StoragePath]:
    folder = out / PICTURES
    return [folder / name for name in folder.files() if name.endswith(".parquet")]


def _read(path: StoragePath, columns: list[str] | None = None) -> pa.Table:
    with path.system.open_input_file(path.path) as file:
        return pq.ParquetFile(file).read(columns=columns)  # without those that the file does not have


def record(out: StoragePath, done: Sequence[dict[str, Any]], failed: Sequence[dict[str, str]]) -> None:
    """Write rows of images that are done, whose masks are written already, and of images that failed."""
    for folder, rows, schema in ((PICTURES, done, PICTURE_SCHEMA), (FAILED, failed, FAILED_SCHEMA)):
        if rows:
            name = hashlib.blake2b("\n".join(row["picture"] for row in rows).encode(), digest_size=12).hexdigest()
            _write(out / folder / f"{name}.parquet", rows, schema)


def _write(path: StoragePath, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    path.write(sink.getvalue().to_pybytes())
