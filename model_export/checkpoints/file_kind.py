"""Names files that are no checkpoints by their first bytes."""

from pathlib import Path

_PYTORCH = (b"PK\x03\x04", b"\x80")  # a ZIP archive; a pickle, before PyTorch 1.6
_OTHERS = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a WebP image or other RIFF file"),
    (b"%PDF", "a PDF"),
    (b"\x1f\x8b", "gzip data: unpack it first"),
    (b"\xfd7zXZ", "xz data: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x89HDF", "HDF5 data, as of Keras"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself: run git lfs pull"),
    (b"<", "HTML or XML, such as the error page of a failed download"),
    (b"{", "text in JSON"),
)


def other_kind(path: Path) -> str | None:
    """What the file is if it can't be a PyTorch file, in words; else None."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "nothing: it has 0 bytes"
    if head.startswith(_PYTORCH):
        return None
    if b"{" in head[8:10]:
        return "tensors in the safetensors format: rename it to .safetensors"
    known = next((name for magic, name in _OTHERS if head.lstrip().startswith(magic)), None)
    return known or f"other data, starting with the bytes {head[:4].hex(' ')}"
