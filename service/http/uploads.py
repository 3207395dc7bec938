"""Reads the images of a request, from a multipart field or the body itself, and counts the bytes as they arrive."""

import re
from collections.abc import AsyncGenerator, Callable, Collection
from typing import Final

from starlette.formparsers import MultiPartException
from starlette.requests import Request

from service.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType
from service.http.multipart import Form, ImageFile, read_form
from service.http.query_params import PARAMETERS
from service.settings import Settings

OnReceived = Callable[[int], None]  # called with the size of each chunk of a body
FIELD: Final = "image"
UNDECLARED_BYTES: Final = 1024 * 1024  # a photograph; if more arrive, they count as they do
FORM: Final = "multipart/form-data"
EXAMPLES: Final = "curl -F image=@photo.jpg, or curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg'"


# Types of bodies that hold something else than one image; whatever other type is named, the bytes decide.
_OTHER_CONTENT: Final = re.compile(
    r"(?:text|audio|video|message|multipart|font|model)/.*"
    r"|application/(?:json|xml|x-www-form-urlencoded|javascript|pdf|zip|gzip|.*\+(?:json|xml|zip))"
)


def check_head(request: Request, max_body_bytes: int, extra_media_types: Collection[str] = ()) -> None:
    """Reject a request by its head, before a byte of its body is read.

    extra_media_types: that the route accepts besides those of images and forms.
    Clients name the type of an image file as they like (application/binary, image/x-png), so that only types of other
    content are rejected. Raises PayloadTooLarge or UnsupportedMediaType.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_body_bytes:
        raise _body_too_large(f"Content-Length is {length}", max_body_bytes)
    encodings = ",".join(request.headers.getlist("content-encoding"))
    if not {encoding.strip().lower() for encoding in encodings.split(",")} <= {"", "identity"}:
        raise UnsupportedMediaType(
            f"Content-Encoding is {encodings[:40]!r}. Send the image without it; image files are already compressed."
        )
    content_type, accepted = media_type(request), {FORM, "application/octet-stream", *extra_media_types}
    if content_type not in accepted and _OTHER_CONTENT.fullmatch(content_type):
        raise UnsupportedMediaType(
            f"Content-Type is {content_type[:80]!r}. Expected image/*, {', '.join(sorted(accepted))}. "
            f"For example: {EXAMPLES}."
        )


def declared_size(content_length: str, max_body_bytes: int) -> int:
    """How many bytes to count for a body before it arrives: without a Content-Length UNDECLARED_BYTES."""
    return min(int(content_length) if content_length.isdecimal() else UNDECLARED_BYTES, max_body_bytes)


async def read_images(request: Request, on_received: OnReceived) -> list[ImageFile]:
    """Each image, from a form or the body itself. At least one; a single one is not empty.

    Raises BadRequest or PayloadTooLarge.
    """
    if media_type(request) == FORM:
        images = await _read_form(request, on_received, _settings(request).max_images)
    else:
        images = [ImageFile(await read_body(request, on_received))]
    if len(images) == 1 and not images[0].data:
        raise BadRequest(f"The image is empty (0 bytes). Send an image file, for example: {EXAMPLES}.")
    return images


async def read_body(request: Request, on_received: OnReceived, max_body_bytes: int | None = None) -> bytes:
    """The whole body. max_body_bytes: by default the setting. Raises PayloadTooLarge."""
    return b"".join([chunk async for chunk in _counted(request, on_received, max_body_bytes)])


def media_type(request: Request) -> str:
    """Content-Type without its parameters; empty when there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.pipeline.settings
    return settings


async def _counted(
    request: Request, on_received: OnReceived, max_body_bytes: int | None = None
) -> AsyncGenerator[bytes, None]:
    total, max_body_bytes = 0, max_body_bytes or _settings(request).max_body_bytes
    async for chunk in request.stream():
        total += len(chunk)
        on_received(len(chunk))
        if total > max_body_bytes:
            raise _body_too_large(f"At least {total} bytes received", max_body_bytes)
        yield chunk


def _body_too_large(received: str, max_body_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"{received}, limit {max_body_bytes} bytes (ALIGNSEG_MAX_BODY_BYTES). Send a smaller image, or raise the limit."
    )


async def _read_form(request: Request, on_received: OnReceived, max_images: int) -> list[ImageFile]:
    try:
        form = await read_form(request, _counted(request, on_received), FIELD)
    except (MultiPartException, UnicodeError) as error:  # UnicodeError: of an unknown charset
        reason = str(error).rstrip(".")
        raise BadRequest(f"Cannot parse the multipart body: {reason}. Send it as in: {EXAMPLES}.") from error
    _check_form(form, max_images)
    return form.images


def _check_form(form: Form, max_images: int) -> None:
    if misplaced := sorted(PARAMETERS.keys() & form.fields.keys()):
        name = misplaced[0]
        raise BadRequest(
            f"The form has a field {name!r}. Send options in the URL instead: /segment?{name}={form.fields[name]}"
        )
    count = len(form.images) + form.texts
    if not 1 <= count <= max_images:
        limit = f"1 to {max_images} (ALIGNSEG_MAX_IMAGES)" if max_images > 1 else "1"
        names = sorted(form.fields)[:20] + [FIELD] * (count > 0)
        raise BadRequest(
            f"The form has {count} fields named {FIELD!r}; its fields are {names}. Expected {limit}, as in: {EXAMPLES}."
        )
    if form.texts:
        raise BadRequest(f"The field {FIELD!r} contains text. Expected a file (is the @ missing?), as in: {EXAMPLES}.")
