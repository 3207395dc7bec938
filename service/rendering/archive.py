"""Everything as files, in a ZIP or as multipart/mixed: mask.png, overlay.jpg, a mask a class, answer.json."""

import io
import re
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from service.rendering import images, media_types
from service.rendering.json_response import describe, dumped, mask_png
from service.rendering.options import RenderOptions
from service.rendering.segmentation import Segmentation

# New with every process, so that nobody can put it into a picture beforehand (RFC 2046, section 5.1.1).
BOUNDARY: Final = uuid.uuid4().hex
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # ZIP's first: the same picture gives the same file


@dataclass(frozen=True, slots=True)
class File:
    """One file of an answer; `name` is a relative path of harmless characters."""

    name: str
    media_type: str
    data: bytes


def files(seg: Segmentation, wishes: RenderOptions) -> Iterator[File]:
    """The files, answer.json first; it names the others."""
    answer, shown, classes = describe(seg, wishes)
    palette = seg.model.palette
    found = [
        File("mask.png", media_types.PNG, mask_png(shown, wishes)),
        File("overlay.jpg", media_types.JPEG, images.overlay_jpeg(seg.picture, shown.ids, palette, wishes.alpha)),
    ]
    if seg.confidence is not None:
        found.append(File("confidence.png", media_types.PNG, images.confidence_png(seg.confidence)))
    for c, entry in zip(classes, answer["classes"], strict=True):
        entry["file"] = f"classes/{c.id:03}-{_harmless(c.name)}.png"
        found.append(File(entry["file"], media_types.PNG, images.class_bitmap_png(shown.ids, c.id)))
    answer["files"] = [file.name for file in found]
    yield File("answer.json", media_types.JSON, dumped(answer, seg))
    yield from found


def render_zip(seg: Segmentation, wishes: RenderOptions) -> bytes:
    """The files as they are: pictures are compressed already."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for file in files(seg, wishes):
            archive.writestr(zipfile.ZipInfo(file.name, _EPOCH), file.data)
    return out.getvalue()


def render_multipart(seg: Segmentation, wishes: RenderOptions) -> bytes:
    """The files as parts, divided by BOUNDARY."""
    parts: list[bytes] = []
    for file in files(seg, wishes):
        head = f'Content-Type: {file.media_type}\r\nContent-Disposition: attachment; filename="{file.name}"'
        parts += [f"--{BOUNDARY}\r\n{head}\r\nContent-Length: {len(file.data)}\r\n\r\n".encode(), file.data, b"\r\n"]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


def _harmless(name: str) -> str:
    """A class may be named "a/b" or ".."; a file may not."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:80]
