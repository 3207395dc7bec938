import pytest

from service.errors import BadRequest
from service.http.query_params import PARAMETERS, parse
from service.rendering import media_types
from service.rendering.options import RenderOptions


def test_an_empty_query_gives_the_defaults() -> None:
    assert parse([], media_types.JSON) == RenderOptions()
    assert parse([(name, "") for name in PARAMETERS], media_types.PNG) == RenderOptions()  # an HTML form's empty fields


def test_all_parameters_together() -> None:
    query = [
        ("masks", "RLE"), ("classes", "road, car"), ("classes", "2"), ("alpha", "0.25"), ("confidence", "1"),
        ("tile", "True"), ("include", "overlay,class_masks"),
    ]  # fmt: skip
    assert parse(query, media_types.JSON) == RenderOptions(
        frozenset({"overlay", "class_masks"}), "rle", ("road", "car", "2"), 0.25, confidence=True, tile="true"
    )


INVALID = {
    "mask=png": "Unknown query parameter: mask. Supported: masks, classes, alpha, confidence, tile, include.",
    "masks=svg": "masks is 'svg'. Expected one of png, rle, polygons, none.",
    "masks=png&masks=rle": "masks is given 2 times. Expected one of png, rle, polygons, none",
    "alpha=0.2&alpha=0.3": "alpha is given 2 times. Expected one number from 0 to 1",
    "alpha=2": "alpha is '2'. Expected a number from 0 to 1, such as 0.5",
    "alpha=-0.1": "Expected a number from 0 to 1",
    "alpha=nan": "Expected a number from 0 to 1",
    "alpha=inf": "Expected a number from 0 to 1",
    "alpha=half": "alpha is 'half'",
    "confidence=maybe": "confidence is 'maybe'. Expected true or false.",
    "tile=2": "tile is '2'. Expected one of auto, false, height, true.",
    "include=mask": "Unknown value of include: mask. Supported: overlay, class_masks, class_overlays.",
}


@pytest.mark.parametrize("query", INVALID)
def test_an_invalid_value_is_rejected_with_the_valid_ones(query: str) -> None:
    pairs = [(name, value) for name, _, value in (part.partition("=") for part in query.split("&"))]
    with pytest.raises(BadRequest) as raised:
        parse(pairs, media_types.JSON)
    assert INVALID[query] in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "media_type"),
    [("masks", "rle", media_types.PNG), ("confidence", "true", media_types.JPEG), ("alpha", "0.25", media_types.NPY),
     ("include", "overlay", media_types.ZIP), ("alpha", "0", media_types.PNG)],
)  # fmt: skip
def test_a_parameter_without_effect_on_the_format_is_rejected(name: str, value: str, media_type: str) -> None:
    with pytest.raises(BadRequest, match=rf"{name} has no effect on {media_type}, which Accept .*application/json"):
        parse([(name, value)], media_type)


def test_a_default_value_is_accepted_for_any_format() -> None:
    assert parse([("confidence", "false"), ("masks", "png"), ("alpha", "0.5")], media_types.NPY) == RenderOptions()
