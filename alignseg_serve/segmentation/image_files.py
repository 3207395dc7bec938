"""Which files below a folder are images, and names for the files that are written for them."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff"})
MAX_NAME_BYTES: Final = 255  # of most file systems
_MACOS_PREFIX: Final = "._"  # AppleDouble files, which macOS writes beside each file on other file systems
_MACOS_FOLDER: Final = "__MACOSX"  # the same in ZIP files
_HASH_CHARACTERS: Final = 8


def is_image(path: str) -> bool:
    """Whether a path relative to the source, with /, is an image by its name, and not metadata of macOS."""
    _, dot, suffix = path.rpartition("/")[2].rpartition(".")
    return f"{dot}{suffix.lower()}" in SUFFIXES and not is_macos_metadata(path)


def is_macos_metadata(path: str) -> bool:
    """Whether a path relative to the source, with /, is one of those that macOS adds to copies and archives."""
    folders, _, name = path.rpartition("/")
    return name.startswith(_MACOS_PREFIX) or (_MACOS_FOLDER in folders and _MACOS_FOLDER in folders.split("/"))


def list_images(folder: Path, on_skipped: Callable[[str], object], others: list[Path] | None = None) -> list[Path]:
    """All images below a folder, sorted, except those in hidden folders, such as .git or .thumbnails.

    Links to folders are followed, except to a folder that contains the link.

    on_skipped: called with a sentence for each link or folder that can't be read, and for metadata of macOS.
    others: gets the files that are not named as images, hidden ones apart.
    """
    metadata: list[Path] = []
    images = []
    for path in _files(folder, frozenset(), on_skipped):
        if path.suffix.lower() not in SUFFIXES:
            if others is not None and not path.name.startswith("."):
                others.append(path)
            continue
        if is_macos_metadata(path.relative_to(folder).as_posix()):
            metadata.append(path)
        elif path.is_file():
            images.append(path)
        else:
            on_skipped(f"{path} is a link to a file that does not exist, skipped.")
    if metadata:
        on_skipped(f"Metadata of macOS skipped: {len(metadata)}, such as {metadata[0]}.")
    return sorted(images)


def _files(folder: Path, above: frozenset[Path], on_skipped: Callable[[str], object]) -> Iterator[Path]:
    """above: the real paths of the folders that contain this one."""
    real = folder.resolve()
    if real in above:
        on_skipped(f"{folder} is a link to a folder that contains it, skipped.")
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        on_skipped(f"{folder} can't be read, skipped: {error.strerror}.")
        return
    for entry in entries:
        if entry.is_dir():
            if entry.name.startswith("."):
                continue
            yield from _files(entry, above | {real}, on_skipped)
        else:
            yield entry


def output_name(name: str, suffix: str) -> str:
    """The name with the suffix; where file systems do not allow so long a name, part of it and a hash of the whole."""
    if len(os.fsencode(name + suffix)) <= MAX_NAME_BYTES:
        return name + suffix
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:_HASH_CHARACTERS]
    kept_bytes = MAX_NAME_BYTES - len(os.fsencode(suffix)) - len(digest) - 1
    return f"{os.fsencode(name)[:kept_bytes].decode('utf-8', 'ignore')}~{digest}{suffix}"
