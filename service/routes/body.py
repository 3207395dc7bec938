"""The picture's bytes out of a request: a multipart field, or the body itself. Counted while they come in."""

from collections.abc import AsyncGenerator
from typing import Final

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import BadRequest, TooManyBytes, UnsupportedMediaType

FIELD: Final = "image"
HOW_TO: Final = "curl -F image=@photo.jpg, or curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg'"


class _MemoryParser(MultiPartParser):
    """Never spools to a disk, which may be full or read-only: the bytes are bounded by the caller."""

    spool_max_size = 0  # SpooledTemporaryFile takes 0 for "without end"


def refuse_by_header(request: Request, max_body_bytes: int) -> None:
    """Judge the head of a request, before a byte of its body is read.

    Raises TooManyBytes or UnsupportedMediaType.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_body_bytes:
        raise TooManyBytes(_too_many(f"{length} bytes are announced", max_body_bytes))
    if (coding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise UnsupportedMediaType(
            f"Content-Encoding is {coding!r}; send the picture as it is, it is compressed already."
        )
    kind = _media_type(request)
    if kind and kind not in {"multipart/form-data", "application/octet-stream"} and not kind.startswith("image/"):
        raise UnsupportedMediaType(
            f"Content-Type is {kind!r}; expected multipart/form-data, image/* or application/octet-stream: {HOW_TO}."
        )


async def read_picture(request: Request, max_body_bytes: int) -> bytes:
    """The bytes of the picture, whichever way they were sent.

    Raises BadRequest or TooManyBytes.
    """
    stream = _counted(request, max_body_bytes)
    if _media_type(request) == "multipart/form-data":
        return await _read_field(request, stream)
    data = b"".join([chunk async for chunk in stream])
    if not data:
        raise BadRequest(f"the body is empty; expected a picture: {HOW_TO}.")
    return data


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _counted(request: Request, max_body_bytes: int) -> AsyncGenerator[bytes, None]:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > max_body_bytes:
            raise TooManyBytes(_too_many(f"more than {max_body_bytes} bytes came", max_body_bytes))
        yield chunk


def _too_many(found: str, max_body_bytes: int) -> str:
    return f"{found}, at most {max_body_bytes} are taken. Scale the picture down, or raise ALIGNSEG_MAX_BODY_BYTES."


async def _read_field(request: Request, stream: AsyncGenerator[bytes, None]) -> bytes:
    try:
        form = await _MemoryParser(request.headers, stream, max_files=8, max_fields=32).parse()
    except MultiPartException as error:
        raise BadRequest(f"the multipart body does not parse: {error.message} Send it with {HOW_TO}.") from error
    try:
        data = await _only_file(form).read()
    finally:
        await form.close()
    if not data:
        raise BadRequest(f"the file in the field {FIELD!r} is empty; expected a picture: {HOW_TO}.")
    return data


def _only_file(form: FormData) -> UploadFile:
    values = form.getlist(FIELD)
    if len(values) != 1:
        found = f"{len(values)} fields {FIELD!r} among {sorted(set(form))}"
        raise BadRequest(f"the form has {found}; expected one: {HOW_TO}.")
    (value,) = values
    if not isinstance(value, UploadFile):
        raise BadRequest(f"the field {FIELD!r} holds text, not a file (is the @ missing?): {HOW_TO}.")
    return value
