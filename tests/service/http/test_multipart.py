"""Forms as clients send them, and as RFC 7578 and RFC 2046 allow them."""

import asyncio
import re
from collections.abc import AsyncGenerator

import numpy as np
import pytest

from tests.support.fake_engine import encoded, opened, serving, striped

PNG = encoded(striped())
LARGE = encoded(np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8), "BMP")  # 1.5 MB
IMAGE = b'Content-Disposition: form-data; name="image"'
FILE = IMAGE + b'; filename="a.png"'
NOTE = b'Content-Disposition: form-data; name="note"'
TWO_MB = b"a" * 2_000_000
HEADERS = {"Content-Type": "multipart/form-data; boundary=x"}


def form(*parts: tuple[bytes, bytes], preamble: bytes = b"", epilogue: bytes = b"") -> bytes:
    body = b"".join(b"--x\r\n" + head + b"\r\n\r\n" + content + b"\r\n" for head, content in parts)
    return preamble + body + b"--x--\r\n" + epilogue


VALID = {
    "without a filename": form((IMAGE, PNG)),
    "without a filename, with a type": form((IMAGE + b"\r\nContent-Type: image/png", PNG)),
    "without a filename, above 1 MB": form((IMAGE, LARGE)),
    "an empty filename": form((IMAGE + b'; filename=""', PNG)),
    "a filename in UTF-8": form((IMAGE + '; filename="Straße 日本.png"'.encode(), PNG)),
    "a filename in Latin-1": form((IMAGE + '; filename="Straße.png"'.encode("latin-1"), PNG)),
    "filename* alone": form((IMAGE + b"; filename*=UTF-8''stra%C3%9Fe.png", PNG)),
    "filename and filename*": form((FILE + b"; filename*=UTF-8''a.png", PNG)),
    "a filename of 4,000 characters": form((IMAGE + b'; filename="%s"' % (b"a" * 4000), PNG)),
    "a filename with quotes": form((IMAGE + b'; filename="a\\"b.png"', PNG)),
    "parameters in another order": form((b'Content-Disposition: form-data; filename="a.png"; name="image"', PNG)),
    "no quotes": form((b"Content-Disposition: form-data; name=image; filename=a.png", PNG)),
    "other case": form((b'content-disposition: Form-Data; name="image"; filename="a.png"', PNG)),
    "headers of the part": form((FILE + b"\r\nContent-Transfer-Encoding: binary\r\nContent-Length: 9", PNG)),
    "a preamble": form((FILE, PNG), preamble=b"This is a message in MIME format.\r\n"),
    "an empty line before": form((FILE, PNG), preamble=b"\r\n"),
    "a preamble of 200 kB": form((FILE, PNG), preamble=b"preamble --x \r\n" * 13_000),
    "an epilogue": form((FILE, PNG), epilogue=b"The end.\r\n--x\r\nanything"),
    "a large field before": form((NOTE, TWO_MB), (FILE, PNG)),
    "a large field behind": form((FILE, PNG), (NOTE, TWO_MB)),
    "a large file beside": form((FILE, PNG), (NOTE + b'; filename="b.txt"', TWO_MB)),
    "a hundred fields": form(
        *[(b'Content-Disposition: form-data; name="n%d"' % i, b"1") for i in range(100)], (FILE, PNG)
    ),
    "twenty other files": form(
        *[(b'Content-Disposition: form-data; name="n%d"; filename="a"' % i, b"1") for i in range(20)], (FILE, PNG)
    ),
}


async def in_pieces(body: bytes, size: int) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), size):
        yield body[start : start + size]
        await asyncio.sleep(0)


@pytest.mark.parametrize("name", VALID)
async def test_a_valid_form_gives_a_mask(name: str) -> None:
    async with serving() as (client, _):
        for content in (VALID[name], in_pieces(VALID[name], 65536)):
            response = await client.post("/segment", content=content, headers={**HEADERS, "Accept": "image/png"})
            assert response.status_code == 200, response.text
    assert opened(response.content).size == ((700, 700) if "above 1 MB" in name else (24, 16))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_a_form_may_arrive_in_any_pieces(size: int) -> None:
    body = form((NOTE, b"\r\n--y\r\n--"), (IMAGE, PNG), preamble=b"--\r\n--y\r\n", epilogue=b"--x\r\n")
    async with serving() as (client, _):
        response = await client.post("/segment", content=in_pieces(body, size), headers=HEADERS)
    assert response.status_code == 200, response.text


INVALID = {
    "text in place of a file": (form((IMAGE, b"a.png")), "is the @ missing?"),
    "text beside a file": (form((FILE, PNG), (IMAGE, b"a.png")), "is the @ missing?"),
    "base64": (form((IMAGE, b"data:image/png;base64," + b"iVBORw0K" * 1000)), "Expected|expected"),
    "no boundary in the body": (PNG, "no line with its boundary, 'x'"),
    "another boundary": (form((FILE, PNG)).replace(b"--x", b"--y"), "no line with its boundary, 'x'"),
    "truncated": (form((FILE, PNG))[:-30], "ends before its closing boundary"),
    "truncated in the preamble": (b"preamble\r\n--", "no line with its boundary"),
    "a part without a name": (form((b"Content-Disposition: form-data", PNG)), 'with a "name"'),
    "too many fields": (form(*[(NOTE, b"1")] * 257, (FILE, PNG)), "more than 256 fields"),
    "no image": (form((NOTE, b"1")), r"0 fields named 'image'; its fields are \['note'\]"),
}


@pytest.mark.parametrize("name", INVALID)
async def test_an_invalid_form_is_rejected_with_the_reason(name: str) -> None:
    body, reason = INVALID[name]
    async with serving() as (client, _):
        for content in (body, in_pieces(body, 5)):
            response = await client.post("/segment", content=content, headers=HEADERS)
            assert response.status_code in {400, 415}
            assert re.search(reason, response.json()["detail"]), response.text


async def test_an_option_sent_as_a_field_is_named_with_its_value() -> None:
    body = form((FILE, PNG), (b'Content-Disposition: form-data; name="masks"', b"rle"))
    async with serving() as (client, _):
        response = await client.post("/segment", content=body, headers=HEADERS)
    assert response.status_code == 400
    assert "/segment?masks=rle" in response.json()["detail"]
