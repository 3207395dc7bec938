"""The picture's bytes out of a request: a multipart field, or the body itself. Counted while they come in."""

from collections.abc import AsyncGenerator, Callable, Collection
from typing import Final

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType
from service.http.query_params import PARAMETERS
from service.settings import Settings

Progress = Callable[[int], None]  # told of each part of a body how many bytes it has
FIELD: Final = "image"
_OTHER_FILES: Final = 7  # in fields that nobody asked for
HOW_TO: Final = "curl -F image=@photo.jpg, or curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg'"


class _MemoryParser(MultiPartParser):
    """Never spools to a disk, which may be full or read-only: the bytes are bounded by the caller.

    Takes whole bodies alone: of one that was cut off, Starlette's drops the last picture without a word.
    """

    spool_max_size = 0  # SpooledTemporaryFile takes 0 for "without end"
    _ended = False

    def on_end(self) -> None:
        """The closing boundary is there."""
        self._ended = True

    async def parse(self) -> FormData:
        """Raises MultiPartException."""
        self.stream = self._until_the_end(self.stream)
        return await super().parse()

    async def _until_the_end(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._ended:
            raise MultiPartException("it ends before its closing boundary.")


def refuse_by_header(request: Request, max_body_bytes: int, also: Collection[str] = ()) -> None:
    """Judge the head of a request, before a byte of its body is read.

    also: media types besides pictures' that the route takes. Raises PayloadTooLarge or UnsupportedMediaType.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_body_bytes:
        raise PayloadTooLarge(_too_many(f"{length} bytes are announced", max_body_bytes))
    if (coding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise UnsupportedMediaType(
            f"Content-Encoding is {coding!r}; send the picture as it is, it is compressed already."
        )
    kind, taken = media_type(request), {"multipart/form-data", "application/octet-stream", *also}
    if kind and kind not in taken and not kind.startswith("image/"):
        raise UnsupportedMediaType(f"Content-Type is {kind!r}; expected image/*, {', '.join(sorted(taken))}: {HOW_TO}.")


async def read_pictures(request: Request, progress: Progress) -> list[bytes]:
    """The bytes of each picture, whichever way they were sent: at least one, and a lone one is not empty.

    Raises BadRequest or PayloadTooLarge.
    """
    if media_type(request) == "multipart/form-data":
        pictures = await _read_fields(request, progress, _settings(request).max_images)
    else:
        pictures = [await read_body(request, progress)]
    if pictures == [b""]:
        raise BadRequest(f"the picture is empty, 0 bytes; expected one: {HOW_TO}.")
    return pictures


async def read_body(request: Request, progress: Progress) -> bytes:
    """The body as it is. Raises PayloadTooLarge."""
    return b"".join([chunk async for chunk in _counted(request, progress)])


def media_type(request: Request) -> str:
    """Content-Type without its parameters; empty when there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.pipeline.settings
    return settings


async def _counted(request: Request, progress: Progress) -> AsyncGenerator[bytes, None]:
    total, max_body_bytes = 0, _settings(request).max_body_bytes
    async for chunk in request.stream():
        total += len(chunk)
        progress(len(chunk))
        if total > max_body_bytes:
            raise PayloadTooLarge(_too_many(f"more than {max_body_bytes} bytes came", max_body_bytes))
        yield chunk


def _too_many(found: str, max_body_bytes: int) -> str:
    return f"{found}, at most {max_body_bytes} are taken. Scale the picture down, or raise ALIGNSEG_MAX_BODY_BYTES."


async def _read_fields(request: Request, progress: Progress, max_images: int) -> list[bytes]:
    parser = _MemoryParser(
        request.headers, _counted(request, progress), max_files=max_images + _OTHER_FILES, max_fields=32
    )
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError) as error:  # the latter of a charset that there is not
        raise BadRequest(f"the multipart body does not parse: {error} Send it with {HOW_TO}.") from error
    try:
        return [await upload.read() for upload in _files(form, max_images)]
    finally:
        await form.close()


def _files(form: FormData, max_images: int) -> list[UploadFile]:
    if misplaced := sorted(PARAMETERS.keys() & set(form)):
        raise BadRequest(
            f"the form has the field {misplaced[0]!r}; what is asked for goes into the URL: "
            f"/segment?{misplaced[0]}={str(form[misplaced[0]])[:50]}"
        )
    values = form.getlist(FIELD)
    if not 1 <= len(values) <= max_images:
        found = f"{len(values)} fields {FIELD!r} among {sorted(set(form))}"
        many = f" to {max_images} (ALIGNSEG_MAX_IMAGES)" if max_images > 1 else ""
        raise BadRequest(f"the form has {found}; expected 1{many}: {HOW_TO}.")
    files = [value for value in values if isinstance(value, UploadFile)]
    if len(files) != len(values):
        raise BadRequest(f"the field {FIELD!r} holds text, not a file (is the @ missing?): {HOW_TO}.")
    return files
