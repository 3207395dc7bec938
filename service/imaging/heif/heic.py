"""HEIC, the format of iPhones: read where the extra `heic` is installed, which brings pillow-heif.

libheif applies the file's own rotation and mirroring while it decodes, and ignores Exif's, as Safari does. It has
limits of its own on sizes, items and memory (heif_security.h), which hold besides those of this package.
"""

from typing import Final

try:
    import pillow_heif
except ImportError:
    FORMATS: tuple[str, ...] = ()
else:
    FORMATS = ("HEIF",)
    # One thread: codec threads decode several images at once. Only the primary image is read.
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)

ADVICE: Final = "Send a JPEG, or install alignseg-serve[heic] on the server."
_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def is_heic(data: bytes) -> bool:
    """Whether the file's major brand is one of HEIC."""
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS
