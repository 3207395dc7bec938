"""Reads a multipart/form-data body: keeps the image parts, and of every other part its name and first characters."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Final

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

MAX_PARTS: Final = 256  # besides images
_KEPT_CHARACTERS: Final = 50  # of a part that is not an image, for error messages
_MAX_FILENAME: Final = 255  # bytes, as of most file systems
_MAX_TEXT_BYTES: Final = 4096  # an image part of more is taken for an image, which the decoder then rejects by name


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The encoded bytes of an image, and the name of its file if the client sent one."""

    data: bytes
    filename: str | None = None


@dataclass(slots=True)
class Form:
    """images: the parts of the image field that hold a file. texts: how many of its parts hold text instead.

    fields: name and first characters of every part of another name.
    """

    images: list[ImageFile] = field(default_factory=list)
    texts: int = 0
    fields: dict[str, str] = field(default_factory=dict)


async def read_form(request: Request, chunks: AsyncGenerator[bytes, None], image_field: str) -> Form:
    """Parse the chunks of a body, whose number of bytes the caller limits.

    A part is a file with or without a `filename`, which RFC 7578 makes optional. Whatever is sent in other fields is
    read and not kept. A preamble and an epilogue are ignored (RFC 2046, section 5.1.1).
    Raises MultiPartException or UnicodeError.
    """
    parser = _Parser(request, chunks, image_field)
    await parser.parse()
    return parser.form


class _Parser(MultiPartParser):
    """Accepts only complete bodies: from a truncated one, Starlette's parser silently drops the last part."""

    def __init__(self, request: Request, chunks: AsyncGenerator[bytes, None], image_field: str) -> None:
        super().__init__(request.headers, chunks, max_fields=MAX_PARTS)
        self.form = Form()
        self._image_field = image_field
        self._pieces: list[bytes] = []  # of the current part, if it is of the image field
        self._filename: str | None = None
        self._is_image = self._is_complete = False

    async def parse(self) -> FormData:
        """Fill `form`. Raises MultiPartException."""
        _, options = parse_options_header(self.headers["Content-Type"])
        delimiter = b"--" + options.get(b"boundary", b"")
        self.stream = self._until_complete(_without_preamble(self.stream, delimiter))
        return await super().parse()

    def on_headers_finished(self) -> None:
        """A part's data begins."""
        _, options = parse_options_header(self._current_part.content_disposition)
        if b"name" not in options:
            raise MultiPartException('A part has no Content-Disposition header with a "name"')
        name = options[b"name"].decode("utf-8", "replace")
        self._current_part.field_name = name
        filename = options.get(b"filename")
        self._filename = None if filename is None else filename[:_MAX_FILENAME].decode("utf-8", "replace")
        self._is_image = name == self._image_field
        self._pieces = []
        if not self._is_image:
            self._current_fields += 1
            if self._current_fields > self.max_fields:
                raise MultiPartException(f"The form has more than {self.max_fields} fields besides images")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """More of a part's data."""
        if self._is_image:
            self._pieces.append(data[start:end])
        elif (missing := _KEPT_CHARACTERS - len(self._current_part.data)) > 0:
            self._current_part.data.extend(data[start : min(end, start + missing)])

    def on_part_end(self) -> None:
        """The part is complete."""
        if not self._is_image:
            self.form.fields.setdefault(
                self._current_part.field_name, self._current_part.data.decode("utf-8", "replace")
            )
            return
        content = b"".join(self._pieces)
        if self._filename is not None or not _is_text(content):
            self.form.images.append(ImageFile(content, self._filename or None))
        else:
            self.form.texts += 1

    def on_end(self) -> None:
        """Called at the closing boundary."""
        self._is_complete = True

    async def _until_complete(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not self._is_complete:
            raise MultiPartException("The body ends before its closing boundary")


async def _without_preamble(chunks: AsyncGenerator[bytes, None], delimiter: bytes) -> AsyncGenerator[bytes, None]:
    """Drop what precedes the first line that starts with the delimiter. Raises MultiPartException without such a line.

    Only the last bytes of a preamble are kept, and the search never goes over the same bytes twice.
    """
    line = b"\r\n" + delimiter
    kept = b"\r\n"  # a delimiter may also begin the body
    async for chunk in chunks:
        kept += chunk
        if (at := kept.find(line)) >= 0:
            yield kept[at + 2 :]
            break
        kept = kept[1 - len(line) :]
    else:
        name = delimiter[2:42].decode("latin-1")
        raise MultiPartException(f"The body has no line with its boundary, {name!r} by its Content-Type")
    async for chunk in chunks:
        yield chunk


def _is_text(content: bytes) -> bool:
    """Whether a part without a file name is a short text, such as the name of a file that curl was to send."""
    if len(content) > _MAX_TEXT_BYTES or b"\0" in content:
        return False
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
