"""What travels: pictures to bytes, JSON to values, refusals to problems. No connection is made here."""

import base64
import binascii
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image

from alignseg_serve.client.errors import Problem, UnexpectedResponse

Picture = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]
_PNG_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """One class of the model. color: RGB, as in masks' palettes."""

    id: int
    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ClassShare(ClassEntry):
    """One class as it lies in one picture.

    fraction: share of the picture's pixels, 0..1. box: (x, y, width, height) around all of them.
    confidence: mean probability of its pixels, 0..1, where it was asked for.
    """

    pixels: int
    fraction: float
    box: tuple[int, int, int, int]
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class ClassTable:
    """The model and all that it knows."""

    model: str
    version: str
    classes: tuple[ClassEntry, ...]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A picture, segmented.

    classes: those that are present, by id. mask_png: indexed PNG at the picture's own size.
    overlay_png: the colours blended over the picture; confidence_png: each pixel's probability, 8-bit grey,
    255 is certain; both where asked for. timing_ms: decode, queue, infer, encode, as the server measured them.
    """

    model: str
    version: str
    width: int
    height: int
    classes: tuple[ClassShare, ...]
    mask_png: bytes
    overlay_png: bytes | None
    confidence_png: bytes | None
    timing_ms: Mapping[str, float]

    @cached_property
    def mask(self) -> npt.NDArray[np.uint8]:
        """(height, width) uint8 class ids; 255 where the class was not asked for."""
        return np.asarray(Image.open(io.BytesIO(self.mask_png)))


def bytes_of(picture: Picture) -> bytes:
    """What a picture is sent as: a file's contents as they are, values as PNG, which loses nothing.

    Raises OSError when the file can't be read, TypeError or ValueError for what is no picture.
    """
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | os.PathLike):
        return Path(picture).read_bytes()
    if isinstance(picture, np.ndarray):
        picture = _from_array(picture)
    if not isinstance(picture, Image.Image):
        raise TypeError(f"got {type(picture).__name__}; expected a path, bytes, a Pillow picture or a numpy array.")
    out = io.BytesIO()
    (picture if picture.mode in _PNG_MODES else picture.convert("RGB")).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _from_array(array: npt.NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(f"got an array {array.dtype} {array.shape}; expected uint8 (H, W, 3), RGB.")
    return Image.fromarray(np.ascontiguousarray(array))


def segmentation_of(response: httpx.Response) -> Segmentation:
    """Read the JSON of POST /segment. Raises UnexpectedResponse."""
    try:
        told = response.json()
        return Segmentation(
            model=told["model"],
            version=told["version"],
            width=told["width"],
            height=told["height"],
            classes=tuple(_share(entry) for entry in told["classes"]),
            mask_png=base64.b64decode(told["mask"]),
            overlay_png=_png(told, "overlay"),
            confidence_png=_png(told, "confidence"),
            timing_ms=told["timing_ms"],
        )
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise _bad(response, error) from error


def class_table_of(response: httpx.Response) -> ClassTable:
    """Read the JSON of GET /classes. Raises UnexpectedResponse."""
    try:
        told = response.json()
        entries = tuple(ClassEntry(e["id"], e["name"], (*e["color"],)) for e in told["classes"])
        return ClassTable(told["model"], told["version"], entries)
    except (ValueError, KeyError, TypeError) as error:
        raise _bad(response, error) from error


def problem_of(response: httpx.Response) -> Problem:
    """Why a server said no; proxies in between, which know no problem+json, included."""
    try:
        told = response.json()
    except ValueError:
        told = None
    if not isinstance(told, dict):
        told = {}
    return Problem(
        status=response.status_code,
        type=told.get("type", "about:blank"),
        title=told.get("title", response.reason_phrase or "Refused"),
        detail=told.get("detail", f"{response.request.url} answered {response.status_code} without a reason."),
        request_id=told.get("request_id", response.headers.get("X-Request-Id")),
        retry_after_s=told.get("retry_after_s", retry_after_s(response.headers.get("Retry-After", ""))),
    )


def retry_after_s(value: str) -> float | None:
    """Seconds until Retry-After: a number of them, or a date (RFC 9110, section 10.2.3); None when it is neither."""
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:  # "-0000": UTC, of a clock that knows no place
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def query(*, overlay: bool, confidence: bool, tile: bool, classes: Sequence[str]) -> dict[str, str]:
    """Parameters of POST /segment; those that are as by default are left out."""
    flags = {"confidence": confidence, "tile": tile}
    asked = {name: "true" for name, wanted in flags.items() if wanted}
    return asked | ({"include": "overlay"} if overlay else {}) | ({"classes": ",".join(classes)} if classes else {})


def _png(told: Mapping[str, str], name: str) -> bytes | None:
    return base64.b64decode(told[name]) if name in told else None


def _share(entry: dict[str, Any]) -> ClassShare:
    return ClassShare(
        id=entry["id"],
        name=entry["name"],
        color=(*entry["color"],),
        pixels=entry["pixels"],
        fraction=entry["fraction"],
        box=(*entry["box"],),
        confidence=entry.get("confidence"),
    )


def _bad(response: httpx.Response, error: Exception) -> UnexpectedResponse:
    return UnexpectedResponse(
        f"{response.request.url} answered {response.status_code} with {len(response.content)} bytes that are not as "
        f"expected ({error!r}). Is it an AlignSeg server of this version?"
    )
