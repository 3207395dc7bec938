"""Chooses the media type of a response from the Accept header (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from service.errors import NotAcceptable

_ALIASES: Final = {  # names that clients still send, some of them older than the registered ones
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-jpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/x-webp": "image/webp",
    "application/x-zip-compressed": "application/zip",
    "application/x-zip": "application/zip",
    "text/json": "application/json",
    "application/x-json": "application/json",
    "*": "*/*",  # Java's HttpURLConnection sends it
}


@dataclass(frozen=True, slots=True)
class _MediaRange:
    """One element of Accept, e.g. image/*;q=0.5."""

    type: str
    subtype: str
    quality: float

    def matches(self, media_type: str) -> bool:
        type_, subtype = media_type.split("/")
        return self.type in {"*", type_} and self.subtype in {"*", subtype}

    @property
    def specificity(self) -> int:
        return (self.type != "*") + (self.subtype != "*")


@lru_cache(64)  # most clients send the same header; 32 kB at most
def choose(accept: str, offered: tuple[str, ...]) -> str:
    """The offered media type with the highest quality in `accept`.

    Ties go to the more specific media range, then to the range listed first, then to the type offered first.
    The first one offered is chosen too for a header that prefers nothing to a web page and takes anything: browsers and
    Java's HttpURLConnection send it by default, and its images are those that they can display.
    accept: the header's value; empty means anything. Raises NotAcceptable.
    """
    ranges = [r for element in accept.split(",") if (r := _parse(element)) is not None]
    if not ranges and not accept.strip():
        return offered[0]
    ranked = [(_rank(media_type, ranges), media_type) for media_type in offered]
    (quality, *_), best = max(ranked, key=lambda entry: entry[0])
    if quality <= 0:
        raise NotAcceptable(f"Accept is {accept[:200]!r}. Available media types: {', '.join(offered)}.")
    return offered[0] if _is_web_default(ranges, quality) else best


def _is_web_default(ranges: Sequence[_MediaRange], best_quality: float) -> bool:
    by_name = {f"{r.type}/{r.subtype}": r.quality for r in ranges}
    return by_name.get("text/html", 0.0) >= best_quality and by_name.get("*/*", 0.0) > 0


def _rank(media_type: str, ranges: Sequence[_MediaRange]) -> tuple[float, int, int]:
    """(quality, specificity, minus the position in the header) of the most specific range that matches."""
    matching = [(r.specificity, -position, r.quality) for position, r in enumerate(ranges) if r.matches(media_type)]
    specificity, position, quality = max(matching, default=(0, 0, 0.0))
    return quality, specificity, position


def _parse(element: str) -> _MediaRange | None:
    """None for an element that is not a media range, or has an invalid weight."""
    media_range, *parameters = (part.strip().lower() for part in element.split(";"))
    type_, slash, subtype = _ALIASES.get(media_range, media_range).partition("/")
    if not (type_ and slash and subtype):
        return None
    weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
    try:
        quality = float(weight)
    except ValueError:
        return None
    return _MediaRange(type_, subtype, quality) if 0 <= quality <= 1 else None  # False for NaN too
