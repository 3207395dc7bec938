"""Pre-labels images in CVAT, with the masks of a running server.

    cvat-cli task auto-annotate 137 --function-module alignseg_serve.cvat -p server=str:http://localhost:8000

Parameters (-p NAME=str:VALUE): server, api_key, classes and tile, as of `alignseg segment`. Each class gets one mask;
with --conv-mask-to-poly, one polygon for each connected region. --conf-threshold leaves out classes whose mean
confidence is lower. The interface is cvat_sdk.auto_annotation.DetectionFunction.
"""

import os
from collections.abc import Iterator
from typing import Any, Final

import cvat_sdk.auto_annotation as cvataa
import PIL.Image
from cvat_sdk import models
from cvat_sdk.masks import encode_mask

from alignseg_serve.annotation.keyhole import rings
from alignseg_serve.class_selection import parse_classes, selected_classes
from alignseg_serve.client import Client, Segmentation

DEFAULT_SERVER: Final = "http://localhost:8000"


class Function:
    """A detection function of CVAT's SDK."""

    def __init__(self, client: Client, classes: tuple[str, ...] = (), tile: str = "auto") -> None:
        """Ask the server for its classes. Raises ClientError; BadRequest for an unknown class."""
        self._client, self._classes, self._tile = client, classes, tile
        labels = selected_classes(client.classes(), classes)
        self._spec = cvataa.DetectionFunctionSpec(
            labels=[cvataa.label_spec(entry.name, entry.id, type="mask", color=_hex(entry.color)) for entry in labels]
        )

    @property
    def spec(self) -> cvataa.DetectionFunctionSpec:
        """The labels: the server's classes, under the names that `classes` gives them."""
        return self._spec

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image
    ) -> list[models.LabeledShapeRequest]:
        """The shapes of one image. Raises ClientError."""
        threshold = context.conf_threshold
        result = self._client.segment(image, confidence=threshold is not None, tile=self._tile, classes=self._classes)
        kept = [entry for entry in result.classes if entry.confidence is None or entry.confidence >= (threshold or 0.0)]
        shapes = _polygons if context.conv_mask_to_poly else _masks
        return list(shapes(result, kept))

    def close(self) -> None:
        """Close the connections; cvat-cli leaves that to the end of the process."""
        self._client.close()


def create(
    server: str = DEFAULT_SERVER, api_key: str | None = None, classes: str | None = None, tile: str = "auto"
) -> Function:
    """What cvat-cli calls, with the parameters of -p. api_key: without it, ALIGNSEG_API_KEY.

    Raises what Function raises, AlignSegError when the file of `classes` can't be read.
    """
    client = Client(server, api_key=api_key or os.environ.get("ALIGNSEG_API_KEY"))
    return Function(client, parse_classes(classes), tile)


def _hex(color: tuple[int, int, int]) -> str:
    return f"#{bytes(color).hex()}"


def _masks(result: Segmentation, kept: list[Any]) -> Iterator[models.LabeledShapeRequest]:
    for entry in kept:
        x, y, width, height = entry.box
        points = encode_mask(result.mask == entry.id, (x, y, x + width, y + height))
        yield cvataa.mask(entry.id, points, **_score(entry))


def _polygons(result: Segmentation, kept: list[Any]) -> Iterator[models.LabeledShapeRequest]:
    by_class = rings(result.mask, [entry.id for entry in kept])
    for entry in kept:
        for ring in by_class[entry.id]:
            points = [float(value) for point in ring for value in point]
            yield cvataa.polygon(entry.id, points, **_score(entry))


def _score(entry: Any) -> dict[str, float]:
    return {} if entry.confidence is None else {"score": entry.confidence}
