"""Where pictures come from: a folder of files, or Parquet with a column of them. Each picture has a key.

The key of a file is its path below the source, that of a row `part.parquet#17`: no list of all of them is ever made.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from alignseg_serve.ray_job.storage import StoragePath, place
from alignseg_serve.segment.files import SUFFIXES
from service.errors import AlignSegError

PARQUET: Final = ".parquet"
ROWS_AT_ONCE: Final = 64  # rows of a Parquet file that are in memory while their pictures are handed on
Row = dict[str, Any]


def parts(source: str) -> list[Row]:
    """What can be listed in parallel: the folder itself, or each row group of each Parquet file.

    Raises AlignSegError when there is nothing to segment.
    """
    root = place(source)
    if root.is_file and root.path.endswith(PARQUET):
        return list(_row_groups(source, root, ""))
    if not root.is_folder:
        raise AlignSegError(
            f"{source} is no folder and no {PARQUET} file. --ray takes a folder of pictures, or Parquet."
        )
    first = next((path for path in root.files() if _suffix(path) in SUFFIXES | {PARQUET}), None)
    if first is None:
        raise AlignSegError(f"{source} holds no picture and no Parquet; looked for {', '.join(sorted(SUFFIXES))}.")
    if _suffix(first) in SUFFIXES:
        return [{"source": source, "file": "", "group": -1}]
    tables = (path for path in root.files() if _suffix(path) == PARQUET)
    return [row for path in tables for row in _row_groups(source, root / path, path)]


def pictures(part: Row, apart: StoragePath, wanted: Callable[[str], bool]) -> Iterator[Row]:
    """The pictures of a part that are wanted, as rows: key, uri, data; a file has no data yet, a table's row no uri.

    apart: where results go; what lies there is no picture.
    """
    root = place(part["source"])
    if part["group"] >= 0:
        yield from _of_table(root / part["file"] if part["file"] else root, part, wanted)
        return
    for path in root.files():
        if _suffix(path) in SUFFIXES and wanted(path) and not (root / path).path.startswith(apart.path + "/"):
            yield {"key": path, "source": part["source"], "data": None}


def read(row: Row) -> bytes:
    """The picture's bytes. Raises OSError."""
    data: bytes | None = row["data"]
    return data if data is not None else (place(row["source"]) / row["key"]).read()


def _row_groups(source: str, table: StoragePath, path: str) -> Iterator[Row]:
    with table.system.open_input_file(table.path) as file:
        opened = pq.ParquetFile(file)
        _column(opened.schema_arrow, table.path)
        for group in range(opened.num_row_groups):
            yield {"source": source, "file": path, "group": group}


def _of_table(table: StoragePath, part: Row, wanted: Callable[[str], bool]) -> Iterator[Row]:
    name = part["file"] or table.path.rsplit("/", 1)[-1]
    with table.system.open_input_file(table.path) as file:
        opened = pq.ParquetFile(file)
        column = _column(opened.schema_arrow, table.path)
        number = sum(opened.metadata.row_group(before).num_rows for before in range(part["group"]))
        for batch in opened.iter_batches(ROWS_AT_ONCE, row_groups=[part["group"]], columns=[column]):
            for value in batch.column(0):
                if wanted(key := f"{name}#{number}"):
                    yield {"key": key, "source": part["source"], "data": _bytes_of(value.as_py())}
                number += 1


def _column(schema: pa.Schema, path: str) -> str:
    """The one with pictures: bytes, or, as Hugging Face writes them, a struct with `bytes`."""
    found = [field.name for field in schema if _holds_bytes(field.type)]
    chosen = "image" if "image" in found else found[0] if len(found) == 1 else None
    if chosen is None:
        raise AlignSegError(
            f"{path} has {len(found)} columns of bytes ({', '.join(found) or 'none'}) among {', '.join(schema.names)}; "
            "expected one, or one that is called `image`."
        )
    return chosen


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _bytes_of(value: Any) -> bytes:
    return (value["bytes"] if isinstance(value, dict) else value) or b""


def _suffix(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    return "." + name.rpartition(".")[2].lower() if "." in name else ""
