"""Reads the images of a request, from a multipart field or the body itself, and counts the bytes as they arrive."""

from collections.abc import AsyncGenerator, Callable, Collection
from typing import Final

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType
from service.http.query_params import PARAMETERS
from service.settings import Settings

OnReceived = Callable[[int], None]  # called with the size of each chunk of a body
FIELD: Final = "image"
_OTHER_FILES: Final = 7  # allowed in fields that are ignored
EXAMPLES: Final = "curl -F image=@photo.jpg, or curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg'"


class _MemoryParser(MultiPartParser):
    """Never spools to disk, which may be full or read-only: the caller limits the number of bytes.

    Accepts only complete bodies: from a truncated one, Starlette's parser silently drops the last file.
    """

    spool_max_size = 0  # SpooledTemporaryFile takes 0 for "unlimited"
    _complete = False

    def on_end(self) -> None:
        """Called at the closing boundary."""
        self._complete = True

    async def parse(self) -> FormData:
        """Raises MultiPartException."""
        self.stream = self._until_complete(self.stream)
        return await super().parse()

    async def _until_complete(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._complete:
            raise MultiPartException("The body ends before its closing boundary.")


def check_head(request: Request, max_body_bytes: int, extra_media_types: Collection[str] = ()) -> None:
    """Reject a request by its head, before a byte of its body is read.

    extra_media_types: that the route accepts besides those of images and forms.
    Raises PayloadTooLarge or UnsupportedMediaType.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_body_bytes:
        raise _body_too_large(f"Content-Length is {length}", max_body_bytes)
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise UnsupportedMediaType(
            f"Content-Encoding is {encoding!r}. Send the image without it; image files are already compressed."
        )
    content_type, accepted = (
        media_type(request),
        {"multipart/form-data", "application/octet-stream", *extra_media_types},
    )
    if content_type and content_type not in accepted and not content_type.startswith("image/"):
        raise UnsupportedMediaType(
            f"Content-Type is {content_type!r}. Expected image/*, {', '.join(sorted(accepted))}. "
            f"For example: {EXAMPLES}."
        )


def declared_size(content_length: str, max_body_bytes: int) -> int:
    """How many bytes the body may have: without a Content-Length as many as are accepted at all."""
    return min(int(content_length), max_body_bytes) if content_length.isdecimal() else max_body_bytes


async def read_images(request: Request, on_received: OnReceived) -> list[bytes]:
    """The encoded bytes of each image, from a form or the body itself. At least one; a single one is not empty.

    Raises BadRequest or PayloadTooLarge.
    """
    if media_type(request) == "multipart/form-data":
        images = await _read_form(request, on_received, _settings(request).max_images)
    else:
        images = [await read_body(request, on_received)]
    if images == [b""]:
        raise BadRequest(f"The image is empty (0 bytes). Send an image file, for example: {EXAMPLES}.")
    return images


async def read_body(request: Request, on_received: OnReceived) -> bytes:
    """The whole body. Raises PayloadTooLarge."""
    return b"".join([chunk async for chunk in _counted(request, on_received)])


def media_type(request: Request) -> str:
    """Content-Type without its parameters; empty when there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.pipeline.settings
    return settings


async def _counted(request: Request, on_received: OnReceived) -> AsyncGenerator[bytes, None]:
    total, max_body_bytes = 0, _settings(request).max_body_bytes
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


async def _read_form(request: Request, on_received: OnReceived, max_images: int) -> list[bytes]:
    parser = _MemoryParser(
        request.headers, _counted(request, on_received), max_files=max_images + _OTHER_FILES, max_fields=32
    )
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError) as error:  # UnicodeError: of an unknown charset
        reason = str(error).rstrip(".")
        raise BadRequest(f"Cannot parse the multipart body: {reason}. Send it as in: {EXAMPLES}.") from error
    try:
        return [await upload.read() for upload in _image_files(form, max_images)]
    finally:
        await form.close()


def _image_files(form: FormData, max_images: int) -> list[UploadFile]:
    if misplaced := sorted(PARAMETERS.keys() & set(form)):
        name = misplaced[0]
        raise BadRequest(
            f"The form has a field {name!r}. Send options in the URL instead: /segment?{name}={str(form[name])[:50]}"
        )
    values = form.getlist(FIELD)
    if not 1 <= len(values) <= max_images:
        limit = f"1 to {max_images} (ALIGNSEG_MAX_IMAGES)" if max_images > 1 else "1"
        raise BadRequest(
            f"The form has {len(values)} fields named {FIELD!r}; its fields are {sorted(set(form))}. "
            f"Expected {limit}, as in: {EXAMPLES}."
        )
    files = [value for value in values if isinstance(value, UploadFile)]
    if len(files) != len(values):
        raise BadRequest(f"The field {FIELD!r} contains text. Expected a file (is the @ missing?), as in: {EXAMPLES}.")
    return files
