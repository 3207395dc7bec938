"""Any Pillow image -> RGB: every mode, depth and kind of transparency by one rule.

service/imaging/pillow_rgb.py and alignseg_serve/client/pillow_rgb.py are the same file, because the client imports
nothing of the service; a test compares them.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageCms
from PIL.TiffImagePlugin import TiffImageFile

UInt8Array = npt.NDArray[np.uint8]
# Lossless through an intermediate mode, where Pillow has no direct conversion.
_INTERMEDIATE: Final = {"La": "LA", "RGBa": "RGBA"}
_MIN_ALPHA: Final = 8  # of 255: below it everywhere, nothing can be seen on white
_SAMPLE_FORMAT, _NODATA = 339, 42113  # TIFF tags: TIFF 6.0, section 19; GDAL
# What programs write for "no value", apart from NaN and infinity, where GDAL's tag does not name another.
_MARKERS: Final = (-9999.0, -99999.0, -32767.0, -32768.0, -(2.0**31), float(np.finfo(np.float32).min))
_INTEGER_MAXIMA: Final = (255.0, 4095.0, 65535.0)  # 8 bits, 12 bits as cameras have them, 16 bits
_TOLERANCE: Final = 0.05  # resampling overshoots the range of floats by this share of it
_MIN_SPREAD: Final = 1 / 32  # of the range: with less, nearly the whole image would have eight levels of 256
_ROWS: Final = 256


def to_rgb(image: Image.Image) -> UInt8Array:
    """Convert a Pillow image of any mode; its EXIF orientation is not applied.

    Transparent images are composed on white, as browsers do. Deep grey is scaled from the smallest usual range that
    holds its values: 0..1 (floats), 8, 12 or 16 bits, else from its own range. Values that mark missing data are black.
    Returns (H, W, 3) uint8 RGB, C-contiguous; where possible the image's own memory.
    Raises ValueError when nothing can be seen: a fully transparent image, or values without a range; OSError and
    others when the image does not decode.
    """
    image.load()
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return _grey_to_rgb(image)
    image = _correct_cmyk(image)
    if image.mode == "LAB":
        return np.asarray(_lab_to_srgb(image))
    if image.mode in _INTERMEDIATE:
        image = image.convert(_INTERMEDIATE[image.mode])
    if image.has_transparency_data:
        return np.asarray(_on_white(image.convert("RGBA")))
    return np.ascontiguousarray(image if image.mode == "RGB" else image.convert("RGB"))  # a convert would copy


def undecoded_tiff(image: Image.Image) -> bytes | None:
    """The file of a TIFF that Pillow has opened and not yet decoded; None for every other image.

    Of some kinds Pillow reads other pixels than were meant: whoever decodes TIFFs by rule needs the file.
    """
    if not isinstance(image, TiffImageFile) or not image.tile or image.tell() or image.fp is None:
        return None
    position = image.fp.tell()
    image.fp.seek(0)
    content = image.fp.read()
    image.fp.seek(position)
    return content


def _correct_cmyk(image: Image.Image) -> Image.Image:
    """Pillow takes every CMYK JPEG for Adobe's, which stores inverted values; others don't."""
    is_inverted = image.mode == "CMYK" and image.format in {"JPEG", "MPO"} and "adobe" not in image.info
    return ImageChops.invert(image) if is_inverted else image


def _lab_to_srgb(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.applyTransform(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
    assert converted is not None  # noqa: S101 - None only with inPlace
    return converted


def _on_white(image: Image.Image) -> Image.Image:
    """image: RGBA. Raises ValueError when alpha leaves nothing to see."""
    alpha = image.getchannel("A")
    _check_visible(np.asarray(alpha) >= _MIN_ALPHA)
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white


def _check_visible(visible: npt.NDArray[np.bool_]) -> None:
    if not visible.any():
        raise ValueError(
            "Every pixel is transparent (alpha is 0 everywhere), so nothing can be seen. Remove the alpha channel, or "
            "send the image without its mask."
        )


def _grey_to_rgb(image: Image.Image) -> UInt8Array:
    values: npt.NDArray[Any] = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and tags and tags.get(_SAMPLE_FORMAT, (1,))[0] == 1:
        values = values.view(np.uint32)  # Pillow has no unsigned mode and shows those above 2^31 as negative
    grey = _scale_16_bit(values) if values.dtype.itemsize == 2 else _scale(values, _nodata(tags.get(_NODATA)))
    if isinstance(key := image.info.get("transparency"), int):  # of a PNG: the value of transparent pixels
        grey[values == key] = 255
        _check_visible(np.asarray(values != key))
    return np.ascontiguousarray(np.broadcast_to(grey[..., None], (*grey.shape, 3)))


def _nodata(text: object) -> float:
    """The value of GDAL's tag, which is text; NaN without one."""
    try:
        return float(str(text).rstrip("\0 "))
    except ValueError:
        return np.nan


def _scale_16_bit(values: npt.NDArray[np.uint16]) -> UInt8Array:
    high = int(values.max(initial=0))
    ceiling = next(int(c) for c in _INTEGER_MAXIMA if high <= c)
    table = (np.arange(65536) * 255 + ceiling // 2) // ceiling
    return table.clip(0, 255).astype(np.uint8)[values]


def _scale(values: npt.NDArray[Any], nodata: float) -> UInt8Array:
    """32-bit integers or floats -> 8 bits; missing data is black. Raises ValueError."""
    is_float = values.dtype.kind == "f"
    missing = (values == nodata) | ~np.isfinite(values) if is_float else values == nodata
    low, high = _range(values, missing)
    if low < 0 or high > _INTEGER_MAXIMA[-1]:
        missing |= np.isin(values, np.array(_MARKERS, dtype=values.dtype if is_float else np.float64))
        missing |= _isolated(values, missing)
        low, high = _range(values, missing)
    maxima: tuple[float, ...] = (1.0, *_INTEGER_MAXIMA) if is_float else _INTEGER_MAXIMA
    if values.dtype == np.uint32 and high >= 2.0**31:
        maxima = (2.0**32 - 1,)
    tolerance = _TOLERANCE if is_float else 0.0
    usual = next((c for c in maxima if low >= -tolerance * abs(high) and high <= (1 + tolerance) * c), None)
    floor, ceiling = (low, max(high, low + 1.0)) if usual is None else (0.0, usual)
    _check_spread(values, missing, floor, ceiling, is_usual=usual is not None)
    scaled = np.empty(values.shape, dtype=np.uint8)
    for start in range(0, len(values), _ROWS):  # in parts: as float64, 12 megapixels are 96 MB
        part = slice(start, start + _ROWS)
        levels = (values[part].astype(np.float64) - floor) * (255.0 / (ceiling - floor))
        scaled[part] = np.where(missing[part], 0.0, np.rint(levels)).clip(0, 255)
    return scaled


def _range(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> tuple[float, float]:
    valid = values[~missing]
    if not valid.size:
        raise ValueError("The image has no valid values: all are NaN, infinite or marked as missing.")
    return float(valid.min()), float(valid.max())


def _isolated(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Where the lowest or highest value is further from all others than these are from each other: a marker."""
    marked = np.zeros(values.shape, dtype=bool)
    for extreme in (np.min, np.max):
        valid = values[~(missing | marked)]
        rest = valid[valid != extreme(valid)]
        spread = float(rest.max()) - float(rest.min()) if rest.size else 0.0
        if spread and abs(float(extreme(rest)) - float(extreme(valid))) > spread:
            marked |= values == extreme(valid)
    return marked


def _check_spread(
    values: npt.NDArray[Any], missing: npt.NDArray[np.bool_], floor: float, ceiling: float, *, is_usual: bool
) -> None:
    """Raises ValueError when outliers set the range, or no usual range fits the values."""
    sample = values[~missing]
    sample = sample[:: 1 + sample.size // 100_000].astype(np.float64)
    low, high = (float(value) for value in np.percentile(sample, (1, 99)))
    if 0 < high - (floor if is_usual else low) < _MIN_SPREAD * (ceiling - floor):
        raise ValueError(
            f"Nearly all values lie from {low:.6g} to {high:.6g}, in a range of {floor:.6g} to {ceiling:.6g}: which of "
            "them are black and white can't be known. Save the image with 8 bits."
        )
