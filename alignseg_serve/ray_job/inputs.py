"""The images of a job: files in a folder, or rows of Parquet. Each image has a key.

The key of a file is its path relative to the source, that of a row is `part.parquet#17`. Images are listed lazily: a
job may have millions.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from alignseg_serve.ray_job.storage import StoragePath, open_path
from alignseg_serve.segmentation.image_files import SUFFIXES, is_image, is_macos_metadata
from service.errors import AlignSegError

PARQUET: Final = ".parquet"
ROWS_PER_READ: Final = 64  # rows of a Parquet file that are in memory at once
Row = dict[str, Any]


def parts(source: str) -> list[Row]:
    """Parts of the source that can be listed in parallel: the folder itself, or each row group of each Parquet file.

    Raises AlignSegError when there is nothing to segment.
    """
    root = open_path(source)
    if root.is_file and root.path.endswith(PARQUET):
        return list(_row_groups(source, root, ""))
    if not root.is_folder:
        raise AlignSegError(
            f"{source} is not a folder and not a {PARQUET} file. --ray takes a folder of images, or Parquet files."
        )
    first = next((path for path in root.files() if is_image(path) or _is_table(path)), None)
    if first is None:
        expected = ", ".join([*sorted(SUFFIXES), PARQUET])
        raise AlignSegError(f"{source} contains no image and no Parquet file; expected files named {expected}.")
    if is_image(first):
        return [{"source": source, "file": "", "group": -1, "fingerprint": ""}]
    tables = (path for path in root.files() if _is_table(path))
    return [row for path in tables for row in _row_groups(source, root / path, path)]


def images(part: Row, out: StoragePath, is_selected: Callable[[str], bool]) -> Iterator[Row]:
    """The selected images of a part, as rows: key, source, data (None for a file, which `read` reads), fingerprint.

    out: folder of the results; files in it are not input. is_selected: of a key.
    """
    root = open_path(part["source"])
    if part["group"] >= 0:
        yield from _table_images(root / part["file"] if part["file"] else root, part, is_selected)
        return
    for path, fingerprint in root.fingerprints(without=out):
        if is_image(path) and is_selected(path):
            yield {"key": path, "source": part["source"], "data": None, "fingerprint": fingerprint}


def fingerprints(parts: Sequence[Row], out: StoragePath) -> Iterator[tuple[str, str]]:
    """(file, fingerprint) of each image file, or Parquet file, of the source as it is now. out: as for `images`."""
    for part in parts:
        if part["group"] >= 0:
            yield _table_name(part), part["fingerprint"]
        else:
            found = open_path(part["source"]).fingerprints(without=out)
            yield from ((path, fingerprint) for path, fingerprint in found if is_image(path))


def file_of(key: str, parts: Sequence[Row]) -> str:
    """The file that an image is in: of part.parquet#17 part.parquet, of another key the key itself."""
    return key.rpartition("#")[0] if parts[0]["group"] >= 0 else key


def read(row: Row) -> bytes:
    """The bytes of an image. Raises OSError."""
    data: bytes | None = row["data"]
    return data if data is not None else (open_path(row["source"]) / row["key"]).read()


def _row_groups(source: str, table: StoragePath, path: str) -> Iterator[Row]:
    fingerprint = table.fingerprint()  # before it is read
    with table.system.open_input_file(table.path) as file:
        parquet = pq.ParquetFile(file)
        _image_column(parquet.schema_arrow, table.path)
        for group in range(parquet.num_row_groups):
            yield {"source": source, "file": path, "group": group, "fingerprint": fingerprint}


def _table_images(table: StoragePath, part: Row, is_selected: Callable[[str], bool]) -> Iterator[Row]:
    name = _table_name(part)
    with table.system.open_input_file(table.path) as file:
        parquet = pq.ParquetFile(file)
        column = _image_column(parquet.schema_arrow, table.path)
        number = sum(parquet.metadata.row_group(group).num_rows for group in range(part["group"]))
        for batch in parquet.iter_batches(ROWS_PER_READ, row_groups=[part["group"]], columns=[column]):
            for value in batch.column(0):
                if is_selected(key := f"{name}#{number}"):
                    data = _cell_bytes(value.as_py())
                    yield {"key": key, "source": part["source"], "data": data, "fingerprint": part["fingerprint"]}
                number += 1


def _table_name(part: Row) -> str:
    return part["file"] or open_path(part["source"]).path.rsplit("/", 1)[-1]


def _image_column(schema: pa.Schema, path: str) -> str:
    """The column of images: binary, or a struct with a field `bytes`, as Hugging Face writes them."""
    columns: list[str] = [field.name for field in schema if _holds_bytes(field.type)]
    if "image" in columns:
        return "image"
    if len(columns) != 1:
        raise AlignSegError(
            f"{path} has {len(columns)} binary columns ({', '.join(columns) or 'none'}) among "
            f"{', '.join(schema.names)}; expected one, or one named `image`."
        )
    return columns[0]


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _cell_bytes(value: Any) -> bytes:
    return (value["bytes"] if isinstance(value, dict) else value) or b""


def _is_table(path: str) -> bool:
    return path.lower().endswith(PARQUET) and not is_macos_metadata(path)
