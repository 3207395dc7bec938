"""Images inside JSON, in base64, as POST /segment and Hugging Face's task take them.

JSON takes many times its text in memory if it consists of many small values. An image is one long string, so the number
of values is limited and not their bytes: an image may be as large in JSON as it may be as the body itself. A URL is
never fetched.
"""

import base64
import binascii
from collections.abc import Collection
from typing import Any, Final

import orjson

from service.errors import BadRequest, PayloadTooLarge

IMAGE: Final = "image"
MAX_VALUES: Final = 1000
_OTHER_BYTES: Final = 64 * 1024  # everything besides the image
_DATA_URL: Final = "data:"
_EXPECTED: Final = "Expected an object with one image file in base64, and options beside it"


def max_json_bytes(max_image_bytes: int) -> int:
    """How large JSON with one image in base64 may be."""
    return (max_image_bytes + 2) // 3 * 4 + _OTHER_BYTES


def loads(body: bytes) -> Any:
    """Parse JSON. Raises BadRequest, also above MAX_VALUES values."""
    if (values := sum(map(body.count, (b",", b"[", b"{")))) > MAX_VALUES:  # base64 has none of these characters
        raise BadRequest(f"The JSON has about {values} values, limit {MAX_VALUES}. {_EXPECTED}.")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"Invalid JSON: {error}. {_EXPECTED}.") from None


def decode_image(text: str, max_bytes: int, member: str = IMAGE) -> bytes:
    """The bytes of an image file. text: base64, with or without line breaks, or a data URL (RFC 2397) with base64.

    member: of the JSON, for error messages. Raises BadRequest or PayloadTooLarge.
    """
    start = text[: len(_DATA_URL)].lower()
    if start == _DATA_URL:
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise BadRequest(
                f"{member!r} is a data URL without base64: {head[:60]!r}. Expected data:image/...;base64,..."
            )
    elif "://" in text[:16]:
        raise BadRequest(
            f"{member!r} is a URL: {text[:60]!r}. This server fetches no URL. Send the image itself in base64."
        )
    if "\n" in text:
        text = text.replace("\n", "").replace("\r", "")  # as base64.encodebytes and MIME write it
    try:
        image = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"Invalid base64 in {member!r}: {error}. {_EXPECTED}.") from None
    if not image:
        raise BadRequest(f"{member!r} is empty. {_EXPECTED}.")
    if len(image) > max_bytes:
        raise PayloadTooLarge(
            f"The image has {len(image)} bytes, limit {max_bytes} (ALIGNSEG_MAX_BODY_BYTES). Send a smaller image, or "
            "raise the limit."
        )
    return image


def parse(body: bytes, max_bytes: int, options: Collection[str]) -> tuple[bytes, list[tuple[str, str]]]:
    """Parse the JSON of POST /segment.

    options: names of its other members. max_bytes: of the image.
    Returns the image's bytes, and the options as name and text, as in a query. Raises BadRequest or PayloadTooLarge.
    """
    document = loads(body)
    if not isinstance(document, dict) or not isinstance(document.get(IMAGE), str):
        raise BadRequest(
            f'The JSON has {_describe(document)}. Expected {{"{IMAGE}": IMAGE_IN_BASE64}}, and beside it any of: '
            f"{', '.join(options)}."
        )
    if unknown := sorted(document.keys() - {IMAGE, *options}):
        raise BadRequest(
            f"Unknown members of the JSON: {', '.join(unknown)[:200]}. Supported: {', '.join((IMAGE, *options))}."
        )
    texts = [(name, text) for name in document if name != IMAGE for text in _texts(name, document[name])]
    return decode_image(document[IMAGE], max_bytes), texts


def _describe(document: Any) -> str:
    if not isinstance(document, dict):
        return f"a {type(document).__name__} instead of an object"
    return f"a {type(document[IMAGE]).__name__} as {IMAGE!r}" if IMAGE in document else f"no member {IMAGE!r}"


def _texts(name: str, value: Any) -> list[str]:
    """A value as the texts that a query has for it; none for null."""
    if value is None:
        return []
    if isinstance(value, list) and not any(isinstance(item, list) for item in value):
        return [text for item in value for text in _texts(name, item)]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, (str, int, float)):
        return [str(value)]
    raise BadRequest(f"{name!r} is {str(value)[:60]}. Expected a text, a number, true or false, or a list of these.")
