"""The option `--classes` of the command line and of the annotation tools; service/rendering/selection.py applies it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from service.errors import AlignSegError
from service.rendering.selection import select
from service.types import UInt8Array

if TYPE_CHECKING:  # it needs httpx, which `alignseg segment` without --server does not
    from alignseg_serve.client.schemas import ClassEntry, ClassTable


@dataclass(frozen=True, slots=True)
class _Classes:
    names: Sequence[str]
    palette: UInt8Array


def parse_classes(option: str | None) -> tuple[str, ...]:
    """Split "road=drivable,sky", or read the lines of "@FILE"; lines that start with # are comments.

    Raises AlignSegError when the file can't be read.
    """
    if option is None:
        return ()
    if not option.startswith("@"):
        return _stripped(option.split(","))
    try:
        lines = Path(option[1:]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AlignSegError(f"--classes {option}: {error}. Expected a text file, one class a line.") from error
    return _stripped([line for line in lines if not line.lstrip().startswith("#")])


def _stripped(entries: Sequence[str]) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in entries if entry.strip())


def selected_classes(table: "ClassTable", classes: Sequence[str]) -> "list[ClassEntry]":
    """The classes that results have, under their new names. Raises BadRequest for an unknown class."""
    if not classes:
        return list(table.classes)
    names, colors = [entry.name for entry in table.classes], [entry.color for entry in table.classes]
    selection = select(classes, _Classes(names, np.array(colors, dtype=np.uint8)), table.model)
    return [replace(table.classes[i], name=selection.names[i]) for i in selection.ids]
