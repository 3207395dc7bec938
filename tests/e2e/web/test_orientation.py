"""An image is segmented the way up that a browser shows it: every case is shown by a real Chromium and compared."""

import base64
import io
import struct
import zlib
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.imaging.decode import decode

ORIENTATION, SHORT, LONG, BYTE = 0x112, 3, 4, 1
OTHER_ENTRY = (0x128, SHORT, 1, 2)  # ResolutionUnit
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF>'
    b"</x:xmpmeta>"
)
# What the browser draws, in pixels of the image's natural size.
DRAW = """async (url) => {
  const image = new Image();
  image.src = url;
  await image.decode();
  document.body.appendChild(image);
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  image.remove();
  return [canvas.width, canvas.height, Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data)];
}"""


def saved(kind: str, **options: object) -> bytes:
    """48x32 pixels; red, green, blue and black quarters."""
    image, out = Image.new("RGB", (48, 32), "black"), io.BytesIO()
    for color, box in (("red", (0, 0, 24, 16)), ("lime", (24, 0, 48, 16)), ("blue", (0, 16, 24, 32))):
        image.paste(color, box)
    image.save(out, kind, **options)
    return out.getvalue()


JPEG, PNG = saved("JPEG", quality=95, subsampling=0), saved("PNG")


def exif(*entries: tuple[int, int, int, int], order: str = "<", thumbnail: bytes = b"") -> bytes:
    """entries: (tag, type, count, value) of the first directory. thumbnail: the second directory."""
    body = struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        packed = struct.pack(order + {BYTE: "B", SHORT: "H", LONG: "I"}[kind], value)
        body += struct.pack(order + "HHI", tag, kind, count) + packed.ljust(4, b"\0")
    following = struct.pack(order + "I", 12 + len(body) if thumbnail else 0)
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + body + following + thumbnail


def turned(value: int, kind: int = SHORT, count: int = 1) -> tuple[int, int, int, int]:
    return ORIENTATION, kind, count, value


def segment(content: bytes, marker: int = 0xE1) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def exif_segment(content: bytes, prefix: bytes = b"Exif\0\0") -> bytes:
    return segment(prefix + content)


def jpeg(*segments: bytes, at: int = 20) -> bytes:
    """20: after the JFIF segment."""
    return JPEG[:at] + b"".join(segments) + JPEG[at:]


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(*chunks: bytes, before: bytes = b"IDAT") -> bytes:
    at = PNG.index(before) - 4
    return PNG[:at] + b"".join(chunks) + PNG[at:]


def avif(**options: object) -> bytes:
    """Pillow writes the orientation of `exif` as irot and imir too."""
    return saved("AVIF", quality=95, subsampling="4:4:4", speed=10, **options)


def without_rotation(data: bytes) -> bytes:
    """The property irot says 0 degrees."""
    at = data.index(b"irot") + 4
    assert data[at]
    return data[:at] + b"\0" + data[at + 1 :]


SIX = exif(turned(6))
XMP_SEGMENT = segment(b"http://ns.adobe.com/xap/1.0/\0" + XMP)
PROFILE = b"\nexif\n%8d\n%s\n" % (len(SIX) + 6, (b"Exif\0\0" + SIX).hex().encode())
CASES = {
    **{f"jpeg, {value}": jpeg(exif_segment(exif(turned(value)))) for value in range(10)},
    **{f"png, {value}": png(chunk(b"eXIf", exif(turned(value), order=">"))) for value in range(10)},
    "jpeg, big-endian": jpeg(exif_segment(exif(turned(6), order=">"))),
    "jpeg, before JFIF": jpeg(exif_segment(SIX), at=2),
    "jpeg, before the scan": jpeg(exif_segment(SIX), at=JPEG.index(b"\xff\xda")),
    "jpeg, after the scan": jpeg(exif_segment(SIX), at=len(JPEG) - 2),
    "jpeg, fill bytes before the segment": jpeg(b"\xff\xff", exif_segment(SIX)),
    "jpeg, LONG": jpeg(exif_segment(exif(turned(6, LONG)))),
    "jpeg, LONG, big-endian": jpeg(exif_segment(exif(turned(6, LONG), order=">"))),
    "jpeg, BYTE": jpeg(exif_segment(exif(turned(6, BYTE)))),
    "jpeg, two values": jpeg(exif_segment(exif(turned(6, SHORT, 2)))),
    "jpeg, no value": jpeg(exif_segment(exif(turned(6, SHORT, 0)))),
    "jpeg, XMP alone": jpeg(XMP_SEGMENT),
    "jpeg, XMP and Exif without the tag": jpeg(exif_segment(exif(OTHER_ENTRY)), XMP_SEGMENT),
    "jpeg, XMP against Exif": jpeg(XMP_SEGMENT, exif_segment(exif(turned(3)))),
    "jpeg, two segments": jpeg(exif_segment(exif(turned(3))), exif_segment(SIX)),
    "jpeg, two segments, the first without the tag": jpeg(exif_segment(exif(OTHER_ENTRY)), exif_segment(SIX)),
    "jpeg, two segments, the first broken": jpeg(exif_segment(b"garbage"), exif_segment(SIX)),
    "jpeg, the tag twice": jpeg(exif_segment(exif(turned(3), turned(6)))),
    "jpeg, the tag twice, first invalid": jpeg(exif_segment(exif(turned(9), turned(6)))),
    "jpeg, the tag twice, first LONG": jpeg(exif_segment(exif(turned(3, LONG), turned(6)))),
    "jpeg, the thumbnail's": jpeg(exif_segment(exif(OTHER_ENTRY, thumbnail=SIX[8:]))),
    "jpeg, another pad byte": jpeg(exif_segment(SIX, b"Exif\0\xff")),
    "jpeg, a cut entry": jpeg(exif_segment(SIX[:-6])),
    "jpeg, no next directory": jpeg(exif_segment(SIX[:-4])),
    "jpeg, more entries than there are": jpeg(exif_segment(SIX.replace(b"\x08\0\0\0\1\0", b"\x08\0\0\0\5\0"))),
    "jpeg, BigTIFF's magic": jpeg(exif_segment(SIX.replace(b"II*", b"II+"))),
    "jpeg, a directory beyond the end": jpeg(exif_segment(SIX.replace(b"\x08\0\0\0", b"\xff\xff\xff\xff"))),
    "jpeg, progressive": saved("JPEG", quality=95, subsampling=0, progressive=True, exif=b"Exif\0\0" + SIX),
    "png, after the pixels": png(chunk(b"eXIf", SIX), before=b"IEND"),
    "png, with JPEG's prefix": png(chunk(b"eXIf", b"Exif\0\0" + SIX)),
    "png, LONG": png(chunk(b"eXIf", exif(turned(6, LONG)))),
    "png, as a text chunk": png(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(PROFILE))),
    "png, XMP": png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
    "png, two chunks": png(chunk(b"eXIf", exif(turned(3))), chunk(b"eXIf", SIX)),
    "png, two chunks, the first without the tag": png(chunk(b"eXIf", exif(OTHER_ENTRY)), chunk(b"eXIf", SIX)),
    "png, before the header's next chunk": png(chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"eXIf", SIX)),
    "webp, Exif": saved("WEBP", lossless=True, exif=SIX),
    "webp, Exif with JPEG's prefix": saved("WEBP", lossless=True, exif=b"Exif\0\0" + SIX),
    "webp, XMP": saved("WEBP", lossless=True, xmp=XMP),
    "webp, lossy": saved("WEBP", quality=95, exif=SIX),
    **{f"avif, {value}": avif(exif=b"Exif\0\0" + exif(turned(value))) for value in range(1, 9)},
    "avif, Exif against irot": without_rotation(avif(exif=b"Exif\0\0" + SIX)),
    "avif, XMP": avif(xmp=XMP),
    "bmp": saved("BMP"),
}


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("case", CASES)
def test_pixels_lie_as_chromium_shows_them(case: str, browser_tab: Any) -> None:
    kind, data = case.split(",", maxsplit=1)[0], CASES[case]
    width, height, shown = browser_tab.evaluate(DRAW, f"data:image/{kind};base64,{base64.b64encode(data).decode()}")
    expected = np.array(shown, dtype=np.uint8).reshape(height, width, 4)[..., :3]
    pixels = decode(data, 10_000)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 8  # a wrong turn: 64 and more; codecs differ a little


@pytest.fixture(scope="module")
def browser_tab(browser: Any) -> Generator[Any, None, None]:
    page = browser.new_page()
    page.set_default_timeout(60_000)
    yield page
    page.close()
