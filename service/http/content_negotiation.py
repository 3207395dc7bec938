"""Which of the media types on offer a client wants (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from service.errors import NotAcceptable


@dataclass(frozen=True, slots=True)
class _Range:
    """One element of Accept, e.g. image/*;q=0.5."""

    kind: str
    subtype: str
    quality: float

    def matches(self, media_type: str) -> bool:
        kind, subtype = media_type.split("/")
        return self.kind in {"*", kind} and self.subtype in {"*", subtype}

    @property
    def precision(self) -> int:
        return (self.kind != "*") + (self.subtype != "*")


@lru_cache(64)  # what clients send is nearly always the same, and 32 kB at most
def choose(accept: str, offered: tuple[str, ...]) -> str:
    """The offered type the client likes best.

    Among equals: the one asked for more precisely, then the one named first, then the one offered first.
    accept: the header's value; empty means anything. Raises NotAcceptable.
    """
    ranges = [r for element in accept.split(",") if (r := _parse(element)) is not None]
    if not ranges and not accept.strip():
        return offered[0]
    wishes = [(_wish(media_type, ranges), media_type) for media_type in offered]
    (quality, *_), best = max(wishes, key=lambda wish: wish[0])
    if quality <= 0:
        raise NotAcceptable(f"Accept is {accept[:200]!r}; on offer are {', '.join(offered)}.")
    return best


def _wish(media_type: str, ranges: Sequence[_Range]) -> tuple[float, int, int]:
    """(quality, precision, minus its place in the header) by the most precise range that matches."""
    matching = [(r.precision, -place, r.quality) for place, r in enumerate(ranges) if r.matches(media_type)]
    precision, place, quality = max(matching, default=(0, 0, 0.0))
    return quality, precision, place


def _parse(element: str) -> _Range | None:
    """None for what is no media range, or has a weight that is none."""
    media_range, *parameters = (part.strip().lower() for part in element.split(";"))
    kind, slash, subtype = media_range.partition("/")
    if not (kind and slash and subtype):
        return None
    weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
    try:
        quality = float(weight)
    except ValueError:
        return None
    return _Range(kind, subtype, quality) if 0 <= quality <= 1 else None  # false for NaN too
