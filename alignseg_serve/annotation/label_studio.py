"""Masks of a server -> predictions of Label Studio."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from alignseg_serve.annotation import brush_rle, label_config
from alignseg_serve.annotation.keyhole import rings
from alignseg_serve.annotation.label_config import Control
from alignseg_serve.annotation.label_studio_images import ImageUnavailable, LabelStudioImages
from alignseg_serve.class_selection import selected_classes
from alignseg_serve.client import Client, Segmentation
from alignseg_serve.client.errors import InvalidImageError, ServerError, ServerTimeout
from service.errors import AlignSegError

Json = dict[str, Any]
_PROBE: Final = np.zeros((64, 64, 3), dtype=np.uint8)


class Predictor:
    """Pre-labels the tasks of a project. Threads may share it."""

    def __init__(
        self, client: Client, images: LabelStudioImages, classes: Sequence[str] = (), tile: str = "auto"
    ) -> None:
        """Ask the server for its classes, and whether its model has confidences, which become scores.

        classes, tile: of Client.segment. Raises ClientError; BadRequest for an unknown class.
        """
        self._client, self._images, self._classes, self._tile = client, images, classes, tile
        table = client.classes()
        self._names = [entry.name for entry in selected_classes(table, classes)]
        self.model_version = f"{table.model} {table.version}"
        self._confidence = True
        try:
            client.segment(_PROBE, confidence=True)
        except InvalidImageError:
            self._confidence = False

    def predict(self, tasks: Sequence[Json], config: str) -> list[Json]:
        """A prediction for each task, or {"error": reason} for an image that can't be segmented.

        config: the labelling configuration; other labels are left out.
        Raises AlignSegError when it has none of the classes, ClientError when the server can't be used.
        """
        controls = label_config.parse(config)
        usable = {name: controls[name] for name in self._names if name in controls}
        if not usable:
            raise AlignSegError(
                f"No label of the project is a class of the server. Labels: {', '.join(controls)}; classes: "
                f"{', '.join(self._names)}. Rename labels, or classes with --classes."
            )
        return [self._prediction(task, usable) for task in tasks]

    def _prediction(self, task: Json, controls: Mapping[str, Control]) -> Json:
        field = next(iter(controls.values())).field
        try:
            image = self._images.read(task.get("data", {}).get(field))
            result = self._client.segment(image, confidence=self._confidence, tile=self._tile, classes=self._classes)
        except (ImageUnavailable, InvalidImageError, ServerError, ServerTimeout) as error:
            return {"error": f"task {task.get('id')}: {error}"}
        regions = list(_regions(result, controls))
        scores = [entry.confidence for entry in result.classes if entry.name in controls and entry.confidence]
        prediction: Json = {"result": regions, "model_version": f"{result.model} {result.version}"}
        return prediction | ({"score": round(sum(scores) / len(scores), 4)} if scores else {})


def _regions(result: Segmentation, controls: Mapping[str, Control]) -> Iterator[Json]:
    present = [(entry, controls[entry.name]) for entry in result.classes if entry.name in controls]
    polygons = rings(result.mask, [entry.id for entry, control in present if control.shape == "polygonlabels"])
    for entry, control in present:
        if control.shape == "brushlabels":
            rle = list(brush_rle.encode(result.mask == entry.id))
            yield _region(result, control, entry, {"format": "rle", "rle": rle})
        else:
            for ring in polygons[entry.id]:
                points = [[100 * x / result.width, 100 * y / result.height] for x, y in ring]
                yield _region(result, control, entry, {"points": points, "closed": True})


def _region(result: Segmentation, control: Control, entry: Any, value: Json) -> Json:
    score = {} if entry.confidence is None else {"score": entry.confidence}
    return {
        "id": uuid.uuid4().hex[:10],
        "type": control.shape,
        "from_name": control.from_name,
        "to_name": control.to_name,
        "original_width": result.width,
        "original_height": result.height,
        "image_rotation": 0,
        "value": value | {control.shape: [entry.name]},
        **score,
    }
