"""What is done: OUT/pictures/*.parquet, a row a picture, written only once its mask is there. It is the result, too.

A file's name comes from the keys in it, so that work which Ray does again overwrites rather than repeats. What failed
is listed in OUT/failed/*.parquet, and tried again by the next run.
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
    """64 bits: a job of ten million pictures has a chance of 3 in a million that two are taken for one."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def begin(out: StoragePath, job: dict[str, Any], *, overwrite: bool) -> Hashes:
    """Make OUT ready for a run of `job`. Returns what is done already: sorted hashes of keys, 8 bytes a picture.

    Raises AlignSegError when another job's results lie there.
    """
    told = out / _JOB
    if overwrite:
        for name in (PICTURES, FAILED, MASKS):
            (out / name).clear()
    elif told.is_file and (before := orjson.loads(told.read())) != job:
        changed = ", ".join(
            f"{name}: {before.get(name)} then, {job[name]} now" for name in job if before.get(name) != job[name]
        )
        raise AlignSegError(f"{out.path} holds the results of another job ({changed}). Choose another, or --overwrite.")
    told.write(orjson.dumps(job))
    (out / FAILED).clear()  # those are tried again
    done = np.fromiter((hash_of(key) for key in keys(out)), dtype=np.uint64)
    done.sort()
    return done


def is_done(done: Hashes, key: str) -> bool:
    """Whether the key is among them."""
    wanted = np.uint64(hash_of(key))
    index = int(np.searchsorted(done, wanted))
    return index < len(done) and bool(done[index] == wanted)


def keys(out: StoragePath) -> Iterator[str]:
    """Of every picture that is done."""
    folder = out / PICTURES
    for name in folder.files():
        if name.endswith(".parquet"):
            with folder.system.open_input_file(f"{folder.path}/{name}") as file:
                yield from pq.read_table(file, columns=["picture"]).column(0).to_pylist()


def record(out: StoragePath, done: Sequence[dict[str, Any]], failed: Sequence[dict[str, str]]) -> None:
    """Write both lists; the masks of `done` are there already."""
    for folder, rows, schema in ((PICTURES, done, PICTURE_SCHEMA), (FAILED, failed, FAILED_SCHEMA)):
        if rows:
            name = hashlib.blake2b("\n".join(row["picture"] for row in rows).encode(), digest_size=12).hexdigest()
            sink = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
            (out / folder / f"{name}.parquet").write(sink.getvalue().to_pybytes())
