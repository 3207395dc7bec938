"""Which classes a result contains and under which names: the values of `?classes=` and of `--classes`.

    road                        keep a class, by name or id
    road=drivable, 3=drivable   rename; classes with the same new name are merged
    sky=                        leave out
    *                           keep all other classes

Merged classes have the lowest of their ids, and its colour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from service.errors import BadRequest
from service.types import Classes, UInt8Array

UNSELECTED: Final = 255  # id of pixels whose class was not requested; models have at most 255 classes, 0 to 254
_OTHERS: Final = "*"
_MAX_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class Selection:
    """Has the attributes of Classes.

    ids: of the result, sorted. names: by id; empty for ids that do not occur. palette: (num_classes, 3) uint8 RGB.
    table: 256 bytes, the result's id for each id of the model.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    palette: UInt8Array
    table: bytes

    def apply(self, ids: UInt8Array) -> UInt8Array:
        """The class map with the result's ids; UNSELECTED where the pixel's class was not requested."""
        # Three times as fast as indexing in NumPy, which first converts every index to eight bytes.
        return np.frombuffer(ids.tobytes().translate(self.table), dtype=np.uint8).reshape(ids.shape)


def select(requested: Sequence[str], classes: Classes, model: str) -> Selection:
    """Parse the classes that are requested. model: its name, for errors.

    Raises BadRequest when a class is unknown or has two names, or none is left.
    """
    new_names = _new_names(requested, classes.names, model)
    if not new_names:
        raise BadRequest(f"classes={','.join(requested)[:200]} leaves no class. Add * to keep all others.")
    lowest: dict[str, int] = {}
    for class_id in sorted(new_names):
        lowest.setdefault(new_names[class_id], class_id)
    name_of = {class_id: name for name, class_id in lowest.items()}
    names = tuple(name_of.get(class_id, "") for class_id in range(len(classes.names)))
    table = bytes(lowest[new_names[i]] if i in new_names else UNSELECTED for i in range(256))
    return Selection(tuple(sorted(name_of)), names, classes.palette, table)


def _new_names(requested: Sequence[str], names: Sequence[str], model: str) -> dict[int, str]:
    """The name of each class that is kept, by its id."""
    by_name = _by_name(names)
    parsed = [_parse(entry, by_name) for entry in requested if entry != _OTHERS]
    if unknown := [name for name, class_id, _ in parsed if class_id is None]:
        known = ", ".join(f"{i} {name}" for i, name in enumerate(names))
        raise BadRequest(f"Unknown classes: {', '.join(unknown)[:200]}. Model {model} has, by id or name: {known}.")
    new_names: dict[int, str] = {}
    for _, class_id, new_name in parsed:
        assert class_id is not None  # noqa: S101  # `unknown` is empty
        name = names[class_id] if new_name is None else new_name
        if new_names.setdefault(class_id, name) != name:
            raise BadRequest(
                f"Class {names[class_id]} has two names in classes: {new_names[class_id]!r} and {name!r}. Expected one."
            )
    if _OTHERS in requested:
        new_names = dict(enumerate(names)) | new_names
    return {class_id: name for class_id, name in new_names.items() if name}


def _by_name(names: Sequence[str]) -> dict[str, int]:
    by_name = {str(i): i for i in range(len(names))}
    by_name |= {name.casefold(): i for i, name in enumerate(names)}
    return by_name | {name: i for i, name in enumerate(names)}


def _parse(entry: str, by_name: Mapping[str, int]) -> tuple[str, int | None, str | None]:
    """The class as it was written, its id, and its new name; None for an unknown class and without a new name."""
    whole = by_name.get(entry, by_name.get(entry.casefold()))
    if whole is not None:  # a class may be named "a=b"
        return entry, whole, None
    name, equals, new_name = (part.strip() for part in entry.partition("="))
    if len(new_name) > _MAX_NAME or not new_name.isprintable():
        raise BadRequest(
            f"The new name of class {name[:40]} is {new_name[:40]!r}. "
            f"Expected at most {_MAX_NAME} printable characters."
        )
    return name, by_name.get(name, by_name.get(name.casefold())), new_name if equals else None
