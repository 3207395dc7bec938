"""What a client may ask of an answer: the query parameters of POST /segment, their meaning and their limits."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.errors import BadRequest
from service.rendering import media_types
from service.rendering.options import INCLUDE, MASKS, OVERLAY_ALPHA, RenderOptions

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


@dataclass(frozen=True, slots=True)
class Parameter:
    """One query parameter.

    goes_with: the media types that it has a meaning for. schema: JSON schema of its value, for OpenAPI.
    parse: from its texts, one for each time it is given, to the value of its wish. Raises BadRequest.
    """

    name: str
    description: str
    goes_with: frozenset[str]
    schema: Mapping[str, Any]
    parse: Callable[["Parameter", Sequence[str]], Any]


def parse(query: Iterable[tuple[str, str]], media_type: str) -> RenderOptions:
    """Read the query of a request whose answer is a `media_type`. ?a=x,y and ?a=x&a=y mean the same.

    Raises BadRequest for what is unknown, malformed, or of no meaning to such an answer and not its default.
    """
    given: dict[str, list[str]] = {}
    for name, text in query:
        given.setdefault(name, []).append(text)
    if unknown := sorted(given.keys() - PARAMETERS.keys()):
        raise BadRequest(f"there is no parameter {', '.join(unknown)[:200]!r}; there are {', '.join(PARAMETERS)}.")
    wishes = {}
    for name, texts in given.items():
        if not any(text.strip() for text in texts):
            continue  # an HTML form sends its empty fields too
        parameter = PARAMETERS[name]
        wishes[name] = parameter.parse(parameter, texts)
        if media_type not in parameter.goes_with and wishes[name] != getattr(RenderOptions(), name):
            able = ", ".join(sorted(parameter.goes_with))
            raise BadRequest(f"{name} goes with {able}, but Accept asks for {media_type}. Leave one of them out.")
    return RenderOptions(**wishes)


def _listed(_parameter: Parameter, texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


def _names(parameter: Parameter, texts: Sequence[str]) -> frozenset[str]:
    names = frozenset(_listed(parameter, texts))
    known = parameter.schema["items"]["enum"]
    if unknown := sorted(names - set(known)):
        raise BadRequest(f"{parameter.name} has {', '.join(unknown)[:200]}; it can have {', '.join(known)}.")
    return names


def _single(parameter: Parameter, texts: Sequence[str], expected: str) -> str:
    if len(texts) != 1:
        raise BadRequest(f"{parameter.name} is given {len(texts)} times; expected {expected}.")
    return texts[0].strip().lower()


def _choice(parameter: Parameter, texts: Sequence[str]) -> str:
    choices = parameter.schema["enum"]
    text = _single(parameter, texts, f"one of {', '.join(choices)}")
    if text not in choices:
        raise BadRequest(f"{parameter.name} is {text[:40]!r}; it can be {', '.join(choices)}.")
    return text


def _flag(parameter: Parameter, texts: Sequence[str]) -> bool:
    text = _single(parameter, texts, "one of true, false")
    if text not in _TRUE | _FALSE:
        raise BadRequest(f"{parameter.name} is {text[:40]!r}; it can be true or false.")
    return text in _TRUE


def _share(parameter: Parameter, texts: Sequence[str]) -> float:
    text = _single(parameter, texts, "one number from 0 to 1")
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:  # false for NaN too
        raise BadRequest(f"{parameter.name} is {text[:40]!r}; expected a number from 0 to 1, such as 0.5.")
    return share


def _some_of(*choices: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "enum": list(choices)}, "uniqueItems": True}


_FLAG_SCHEMA: Final = {"type": "boolean", "default": False}
_ALL: Final = frozenset(media_types.ALL)
_FIGURES: Final = frozenset({media_types.JSON, media_types.ZIP, media_types.MULTIPART})

PARAMETERS: Final[Mapping[str, Parameter]] = {
    parameter.name: parameter
    for parameter in (
        Parameter(
            "masks",
            "How masks come in the JSON: as one indexed PNG, per class as COCO's compressed RLE, per class as GeoJSON "
            "MultiPolygon in pixel corners, or not at all.",
            _FIGURES,
            {"type": "string", "enum": list(MASKS), "default": "png"},
            _choice,
        ),
        Parameter(
            "classes",
            "Only these classes, by name or id, separated by commas; other pixels are 255, transparent or left as "
            "they are. GET /classes lists what there is.",
            _ALL,
            {"type": "array", "items": {"type": "string"}, "examples": [["road", "car"]]},
            _listed,
        ),
        Parameter(
            "alpha",
            "How much of the colours an overlay shows: 0 the picture alone, 1 the colours alone.",
            _FIGURES | {media_types.JPEG, media_types.WEBP},
            {"type": "number", "minimum": 0, "maximum": 1, "default": OVERLAY_ALPHA},
            _share,
        ),
        Parameter(
            "confidence",
            "Adds the probability of each pixel's class, as 8-bit grey PNG (255 is certain), and each class's mean.",
            _FIGURES,
            _FLAG_SCHEMA,
            _flag,
        ),
        Parameter(
            "tile",
            "Looks at the picture through overlapping tiles at its native resolution instead of shrinking it: for "
            "pictures much larger than the model's input. Takes as many inferences as tiles; "
            "that they will not be done by the deadline is told after the first few.",
            _ALL,
            _FLAG_SCHEMA,
            _flag,
        ),
        Parameter(
            "include",
            "Pictures to add to the JSON, separated by commas. An overlay is an exact PNG here; "
            "`Accept: image/jpeg` gets one for a tenth of the work.",
            frozenset({media_types.JSON}),
            _some_of(*INCLUDE),
            _names,
        ),
    )
}
