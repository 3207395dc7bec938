"""Images to request bodies, responses to values. Does no I/O over the network."""

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
from alignseg_serve.client.pillow_rgb import to_rgb, undecoded_tiff
from alignseg_serve.result_repr import result_repr

ImageInput = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]
_PNG_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})  # the server composes transparency


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """One class of the model. color: (red, green, blue), 0..255, as in the palette of masks."""

    id: int
    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ClassShare(ClassEntry):
    """One class that is present in an image.

    fraction: share of the image's pixels, 0..1. box: (x, y, width, height) in pixels around all of them.
    confidence: mean probability of its pixels, 0..1; None unless requested.
    """

    pixels: int
    fraction: float
    box: tuple[int, int, int, int]
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class ClassTable:
    """The model's name and version, and all of its classes by id."""

    model: str
    version: str
    classes: tuple[ClassEntry, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """A segmented image. `alignseg_serve.segment` returns the same attributes without a server.

    width, height: of the image in pixels, after EXIF orientation. classes: those that are present, by id.
    mask_png: indexed PNG of the image's size. overlay_png: the class colours blended over the image.
    confidence_png: 8-bit grey PNG, 255 times the probability of each pixel's class. The last two are None unless
    requested. timing_ms: milliseconds in decode, queue, infer and encode, measured by the server.
    input_size: (width, height) of the image as the model saw it, in `tiles` tiles; None from servers that do not say.
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
    input_size: tuple[int, int] | None = None
    tiles: int = 1

    def __repr__(self) -> str:
        return result_repr(self)

    @cached_property
    def mask(self) -> npt.NDArray[np.uint8]:
        """(height, width) uint8 class ids; 255 where the pixel's class was not requested."""
        return np.asarray(Image.open(io.BytesIO(self.mask_png)))

    def save_mask(self, path: str | os.PathLike[str]) -> None:
        """Write the indexed PNG. Raises OSError."""
        Path(path).write_bytes(self.mask_png)

    def save_overlay(self, path: str | os.PathLike[str]) -> None:
        """Write the overlay as a PNG. Raises ValueError when it was not requested, OSError."""
        if self.overlay_png is None:
            raise ValueError("this result has no overlay. Request it: client.segment(image, overlay=True)")
        Path(path).write_bytes(self.overlay_png)


def encode_image(image: ImageInput) -> bytes:
    """The request body for an image: the bytes of a file unchanged; a Pillow image or an array as PNG (lossless).

    A Pillow image of a mode that PNG lacks, or of more than 8 bits, is converted as the server converts such files.
    Raises OSError when the file can't be read, TypeError for another type, ValueError for an array of another shape, or
    an image in which nothing can be seen.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"image: got {type(image).__name__}; expected a path, bytes, a Pillow image or a NumPy array.")
    if (file := undecoded_tiff(image)) is not None:
        return file
    out = io.BytesIO()
    png = image if image.mode in _PNG_MODES else Image.fromarray(to_rgb(image))
    png.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _from_array(array: npt.NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(f"image: got an array {array.dtype} {array.shape}; expected uint8 (H, W, 3) in RGB order.")
    return Image.fromarray(np.ascontiguousarray(array))


def query_params(*, overlay: bool, confidence: bool, tile: bool | str, classes: Sequence[str]) -> dict[str, str]:
    """Query parameters of POST /segment; defaults are left out."""
    params = {"confidence": "true"} if confidence else {}
    if tile != "auto":
        params["tile"] = str(tile).lower()
    if overlay:
        params["include"] = "overlay"
    if classes:
        params["classes"] = ",".join(classes)
    return params


def parse_segmentation(response: httpx.Response) -> Segmentation:
    """Read the JSON of POST /segment. Raises UnexpectedResponse."""
    try:
        body = response.json()
        return Segmentation(
            model=body["model"],
            version=body["version"],
            width=body["width"],
            height=body["height"],
            classes=tuple(_parse_class_share(entry) for entry in body["classes"]),
            mask_png=base64.b64decode(body["mask"]),
            overlay_png=_optional_png(body, "overlay"),
            confidence_png=_optional_png(body, "confidence"),
            timing_ms=body["timing_ms"],
            input_size=(*body["input_size"],) if "input_size" in body else None,
            tiles=body.get("tiles", 1),
        )
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise _unexpected(response, error) from error


def parse_class_table(response: httpx.Response) -> ClassTable:
    """Read the JSON of GET /classes. Raises UnexpectedResponse."""
    try:
        body = response.json()
        classes = tuple(ClassEntry(entry["id"], entry["name"], (*entry["color"],)) for entry in body["classes"])
        return ClassTable(body["model"], body["version"], classes)
    except (ValueError, KeyError, TypeError) as error:
        raise _unexpected(response, error) from error


def parse_problem(response: httpx.Response) -> Problem:
    """Read an error response: problem+json, or whatever a proxy in between sends."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {}
    return Problem(
        status=response.status_code,
        type=body.get("type", "about:blank"),
        title=body.get("title", response.reason_phrase or "Error"),
        detail=body.get("detail", f"{response.request.url} returned {response.status_code} without a description."),
        request_id=body.get("request_id", response.headers.get("X-Request-Id")),
        retry_after_s=body.get("retry_after_s", parse_retry_after(response.headers.get("Retry-After", ""))),
    )


def parse_retry_after(value: str) -> float | None:
    """Seconds of a Retry-After header: a number or an HTTP date (RFC 9110, section 10.2.3); None for anything else."""
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:  # "-0000" means UTC without a known time zone
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _optional_png(body: Mapping[str, str], name: str) -> bytes | None:
    return base64.b64decode(body[name]) if name in body else None


def _parse_class_share(entry: dict[str, Any]) -> ClassShare:
    return ClassShare(
        id=entry["id"],
        name=entry["name"],
        color=(*entry["color"],),
        pixels=entry["pixels"],
        fraction=entry["fraction"],
        box=(*entry["box"],),
        confidence=entry.get("confidence"),
    )


def _unexpected(response: httpx.Response, error: Exception) -> UnexpectedResponse:
    return UnexpectedResponse(
        f"{response.request.url} returned {response.status_code} with {len(response.content)} bytes of another format "
        f"({error!r}). Check that it is an AlignSeg server of the same version as this client."
    )
