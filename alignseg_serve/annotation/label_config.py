"""Label Studio's labelling configuration: which labels an image can get, and as what."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from xml.etree import ElementTree as ET

from service.errors import AlignSegError

Shape = Literal["brushlabels", "polygonlabels"]
_SHAPES: Final[Mapping[str, Shape]] = {"BrushLabels": "brushlabels", "PolygonLabels": "polygonlabels"}  # brushes first
_EXPECTED: Final = (
    "Expected an Image and, with its name as toName, BrushLabels or PolygonLabels. See docs/annotation.md."
)
_MAX_CHARACTERS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Control:
    """A BrushLabels or PolygonLabels tag. field: of the task's data, which holds the image's URL."""

    shape: Shape
    from_name: str
    to_name: str
    field: str


def parse(config: str) -> dict[str, Control]:
    """The control of each label by the label's name. Raises AlignSegError when there is none."""
    try:
        root = ET.fromstring(config[:_MAX_CHARACTERS])  # noqa: S314  # expat limits the expansion of entities
    except ET.ParseError as error:
        raise AlignSegError(f"The labelling configuration is not XML: {error}. {_EXPECTED}") from error
    images = {image.get("name", ""): image.get("value", "").removeprefix("$") for image in root.iter("Image")}
    controls: dict[str, Control] = {}
    for tag, shape in _SHAPES.items():
        for element in root.iter(tag):
            to_name = element.get("toName", "")
            if to_name not in images:
                continue
            control = Control(shape, element.get("name", ""), to_name, images[to_name])
            for label in element.iter("Label"):
                controls.setdefault(label.get("value", ""), control)
    if not controls:
        raise AlignSegError(f"The labelling configuration has no labels for regions of an image. {_EXPECTED}")
    return controls
