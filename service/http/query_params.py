"""The query parameters of POST /segment: names, values, and which response formats each applies to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from service.errors import BadRequest
from service.imaging.tile_plan import TileMode
from service.rendering import media_types
from service.rendering.options import INCLUDE, MASKS, OVERLAY_ALPHA, RenderOptions

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_DEFAULTS: Final = RenderOptions()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One query parameter.

    applies_to: media types of the response for which it has an effect. schema: JSON schema of its value, for OpenAPI.
    parse: converts its texts, one for each time the parameter is given, to the value of the RenderOptions field of the
    same name. Raises BadRequest.
    """

    name: str
    description: str
    applies_to: frozenset[str]
    schema: Mapping[str, Any]
    parse: Callable[["Parameter", Sequence[str]], Any]


def parse(query: Iterable[tuple[str, str]], media_type: str) -> RenderOptions:
    """Parse a query, for a response of this media type. ?a=x,y and ?a=x&a=y mean the same.

    Raises BadRequest for a parameter that is unknown or invalid, or that has no effect on such a response.
    """
    texts_by_name: dict[str, list[str]] = {}
    for name, text in query:
        texts_by_name.setdefault(name, []).append(text)
    if unknown := sorted(texts_by_name.keys() - PARAMETERS.keys()):
        raise BadRequest(f"Unknown query parameter: {', '.join(unknown)[:200]}. Supported: {', '.join(PARAMETERS)}.")
    values = {}
    for name, texts in texts_by_name.items():
        if not any(text.strip() for text in texts):
            continue  # HTML forms send their empty fields too
        parameter = PARAMETERS[name]
        values[name] = parameter.parse(parameter, texts)
        if media_type not in parameter.applies_to and values[name] != getattr(_DEFAULTS, name):
            supported = ", ".join(sorted(parameter.applies_to))
            raise BadRequest(
                f"{name} has no effect on {media_type}, which Accept asks for. Remove {name}, or accept one of "
                f"{supported}."
            )
    return RenderOptions(**values)


def _list(_parameter: Parameter, texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


def _set_of_choices(parameter: Parameter, texts: Sequence[str]) -> frozenset[str]:
    names = frozenset(_list(parameter, texts))
    choices = parameter.schema["items"]["enum"]
    if unknown := sorted(names - set(choices)):
        raise BadRequest(
            f"Unknown value of {parameter.name}: {', '.join(unknown)[:200]}. Supported: {', '.join(choices)}."
        )
    return names


def _single(parameter: Parameter, texts: Sequence[str], expected: str) -> str:
    if len(texts) != 1:
        raise BadRequest(f"{parameter.name} is given {len(texts)} times. Expected {expected}.")
    return texts[0].strip().lower()


def _choice(parameter: Parameter, texts: Sequence[str]) -> str:
    choices = parameter.schema["enum"]
    expected = f"one of {', '.join(choices)}"
    text = _single(parameter, texts, expected)
    if text not in choices:
        raise BadRequest(f"{parameter.name} is {text[:40]!r}. Expected {expected}.")
    return text


def _boolean(parameter: Parameter, texts: Sequence[str]) -> bool:
    text = _single(parameter, texts, "true or false")
    if text not in _TRUE | _FALSE:
        raise BadRequest(f"{parameter.name} is {text[:40]!r}. Expected true or false.")
    return text in _TRUE


def _tile_mode(parameter: Parameter, texts: Sequence[str]) -> str:
    text = _single(parameter, texts, f"one of {', '.join(parameter.schema['enum'])}")
    if text in _TRUE | _FALSE:
        return "true" if text in _TRUE else "false"
    return _choice(parameter, texts)


def _fraction(parameter: Parameter, texts: Sequence[str]) -> float:
    text = _single(parameter, texts, "one number from 0 to 1")
    try:
        fraction = float(text)
    except ValueError:
        fraction = -1.0
    if not 0.0 <= fraction <= 1.0:  # True for NaN too
        raise BadRequest(f"{parameter.name} is {text[:40]!r}. Expected a number from 0 to 1, such as 0.5.")
    return fraction


def _array_of(*choices: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "enum": list(choices)}, "uniqueItems": True}


_BOOLEAN_SCHEMA: Final = {"type": "boolean", "default": False}
_ALL: Final = frozenset(media_types.ALL)
_WITH_JSON: Final = frozenset({media_types.JSON, media_types.ZIP, media_types.MULTIPART})

PARAMETERS: Final[Mapping[str, Parameter]] = {
    parameter.name: parameter
    for parameter in (
        Parameter(
            "masks",
            "Format of the masks in the JSON: one indexed PNG; per class one COCO compressed RLE, or one GeoJSON "
            "MultiPolygon whose points are pixel corners; or none.",
            _WITH_JSON,
            {"type": "string", "enum": list(MASKS), "default": "png"},
            _choice,
        ),
        Parameter(
            "classes",
            "Return only these classes, by name or id, separated by commas. Other pixels are 255, transparent or "
            "unchanged. road=drivable renames a class, and merges those with the same new name; sky= leaves one out; * "
            "keeps all others. GET /classes lists all classes.",
            _ALL,
            {"type": "array", "items": {"type": "string"}, "examples": [["road", "car"]]},
            _list,
        ),
        Parameter(
            "alpha",
            "Opacity of the class colours in overlays: 0 shows only the image, 1 only the colours.",
            _WITH_JSON | {media_types.JPEG, media_types.WEBP},
            {"type": "number", "minimum": 0, "maximum": 1, "default": OVERLAY_ALPHA},
            _fraction,
        ),
        Parameter(
            "confidence",
            "Adds the probability of each pixel's class as an 8-bit grey PNG (255 means 1.0), and the mean per class.",
            _WITH_JSON,
            _BOOLEAN_SCHEMA,
            _boolean,
        ),
        Parameter(
            "tile",
            "How the image is scaled down to the model's input. false: whole. auto: whole, but a panorama that would "
            "fill less than half of the input's height (a tall image: width) is cut into at most 16 overlapping tiles "
            "at its full height. height: the shorter side fills the input, and the longer one is cut into tiles. true: "
            "tiles at the image's native resolution, for images much larger than the input. Takes one inference per "
            "tile. If the first tiles show that the deadline cannot be met, the request fails early.",
            _ALL,
            {"type": "string", "enum": list(get_args(TileMode)), "default": "auto"},
            _tile_mode,
        ),
        Parameter(
            "include",
            "Images to add to the JSON, separated by commas. An overlay in the JSON is a lossless PNG; "
            "`Accept: image/jpeg` returns a JPEG overlay at a tenth of the cost.",
            frozenset({media_types.JSON}),
            _array_of(*INCLUDE),
            _set_of_choices,
        ),
    )
}
