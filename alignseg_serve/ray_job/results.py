"""The results of a job, which are also the record of what is done.

OUT/pictures/*.parquet has a row for each segmented image, written after its mask. OUT/failed/*.parquet lists images
that failed; the next run tries them again. A file is named by a hash of the keys in it, so that a task which Ray
repeats overwrites its file.
"""

import hashlib
from collections.abc import Iterator, Sequence
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
    ("classes", pa.list_(CLASS)),
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
    elif description.is_file and (earlier := orjson.loads(description.read())) != job:
        changes = ", ".join(
            f"{name}: {earlier.get(name)} before, {job[name]} now" for name in job if earlier.get(name) != job[name]
        )
        raise AlignSegError(
            f"{out.path} has the results of another job ({changes}). Use another folder, or --overwrite to delete them."
        )
    description.write(orjson.dumps(job))
    (out / FAILED).clear()  # failed images are tried again
    done = np.fromiter((hash_of(key) for key in keys(out)), dtype=np.uint64)
    done.sort()
    return done


def is_done(done: Hashes, key: str) -> bool:
    """Whether the key's hash is in `done`, as returned by `begin`."""
    key_hash = np.uint64(hash_of(key))
    index = int(np.searchsorted(done, key_hash))
    return index < len(done) and bool(done[index] == key_hash)


def keys(out: StoragePath) -> Iterator[str]:
    """The keys of all images that are done."""
    folder = out / PICTURES
    for name in folder.files():
        if name.endswith(".parquet"):
            with folder.system.open_input_file(f"{folder.path}/{name}") as file:
                yield from pq.read_table(file, columns=["picture"]).column(0).to_pylist()


def record(out: StoragePath, done: Sequence[dict[str, Any]], failed: Sequence[dict[str, str]]) -> None:
    """Write rows of images that are done, whose masks are written already, and of images that failed."""
    for folder, rows, schema in ((PICTURES, done, PICTURE_SCHEMA), (FAILED, failed, FAILED_SCHEMA)):
        if rows:
            name = hashlib.blake2b("\n".join(row["picture"] for row in rows).encode(), digest_size=12).hexdigest()
            sink = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
            (out / folder / f"{name}.parquet").write(sink.getvalue().to_pybytes())
