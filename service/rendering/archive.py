"""ZIP and multipart/mixed: answer.json, mask.png, overlay.jpg and a mask for each class, as files."""

import io
import re
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from service.rendering import images, media_types
from service.rendering.json_response import describe, mask_png, to_json
from service.rendering.options import RenderOptions
from service.rendering.segmentation import Segmentation

# Random for each process, so that no client can put it into an image (RFC 2046, section 5.1.1).
BOUNDARY: Final = uuid.uuid4().hex
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # ZIP's earliest date: the same image gives the same file


@dataclass(frozen=True, slots=True)
class File:
    """One file of a response. name: a relative path of letters, digits, - _ . and /."""

    name: str
    media_type: str
    data: bytes


def files(seg: Segmentation, options: RenderOptions) -> Iterator[File]:
    """The files, answer.json first, which lists the others."""
    response, selected, classes = describe(seg, options)
    palette = seg.model.palette
    rendered = [
        File("mask.png", media_types.PNG, mask_png(selected, options)),
        File("overlay.jpg", media_types.JPEG, images.overlay_jpeg(seg.image, selected.ids, palette, options.alpha)),
    ]
    if seg.confidence is not None:
        rendered.append(File("confidence.png", media_types.PNG, images.confidence_png(seg.confidence)))
    for c, entry in zip(classes, response["classes"], strict=True):
        entry["file"] = f"classes/{c.id:03}-{_safe_name(c.name)}.png"
        rendered.append(File(entry["file"], media_types.PNG, images.class_bitmap_png(selected.ids, c.id)))
    response["files"] = [file.name for file in rendered]
    yield File("answer.json", media_types.JSON, to_json(response, seg))
    yield from rendered


def render_zip(seg: Segmentation, options: RenderOptions) -> bytes:
    """Stored, not compressed: the images in it are compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for file in files(seg, options):
            archive.writestr(zipfile.ZipInfo(file.name, _EPOCH), file.data)
    return out.getvalue()


def render_multipart(seg: Segmentation, options: RenderOptions) -> bytes:
    """A part for each file, separated by BOUNDARY."""
    parts: list[bytes] = []
    for file in files(seg, options):
        head = f'Content-Type: {file.media_type}\r\nContent-Disposition: attachment; filename="{file.name}"'
        parts += [f"--{BOUNDARY}\r\n{head}\r\nContent-Length: {len(file.data)}\r\n\r\n".encode(), file.data, b"\r\n"]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


def _safe_name(name: str) -> str:
    """A class may be named "a/b" or ".."; a file may not."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:80]
