"""Where a checkpoint comes from: what its classes mean, what it was trained on and under which terms."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from model_export.model_folder import class_tables
from service.model_folder.manifest import ClassEntry


@dataclass(frozen=True, slots=True)
class Provenance:
    """classes: by id. metrics: figures that the training measured, e.g. {"camvid_val_miou": 0.6}."""

    classes: tuple[ClassEntry, ...]
    trained_on: str
    terms: str
    metrics: Mapping[str, float] = field(default_factory=dict)


DATASETS = {
    "camvid": Provenance(
        class_tables.CAMVID,
        "CamVid, SegNet selection, 480x360",
        "Weights: non-commercial use, since the frames they were trained on are published under CC BY-NC 4.0.",
    ),
    "cityscapes": Provenance(
        class_tables.CITYSCAPES,
        "Cityscapes, fine annotations",
        "Weights: non-commercial use, after the Cityscapes licence agreement.",
    ),
    "ade20k": Provenance(
        class_tables.ADE20K,
        "ADE20K, MIT scene parsing benchmark",
        "Weights: non-commercial research and education, after the ADE20K terms of use.",
    ),
}


def of(metadata: Mapping[str, str], data: str | None, classes: Path | None, num_classes: int) -> Provenance:
    """What is known of a checkpoint.

    metadata: strings that training left in it ("data", "train_on", "val_miou"), possibly none. data: name of a data
        set, where the checkpoint does not tell. classes: JSON file [{"name": ..., "color": [r, g, b]}, ...].
    Raises ValueError when the classes are not known, or not as many as the network has.
    """
    name = data or metadata.get("data")
    if classes is not None:
        found = Provenance(_read_classes(classes), trained_on=name or "not told", terms="not told")
    elif name in DATASETS:
        found = _measured(DATASETS[name], name, metadata)
    else:
        raise ValueError(
            f"the checkpoint does not tell what its {num_classes} classes are (data set: {name!r}). "
            f"Give --data {'|'.join(DATASETS)}, or --classes FILE.json with a name and a color for each id."
        )
    if len(found.classes) != num_classes:
        raise ValueError(f"{name or classes} has {len(found.classes)} classes, the network has {num_classes}.")
    return found


def _measured(dataset: Provenance, name: str, metadata: Mapping[str, str]) -> Provenance:
    splits, miou = metadata.get("train_on"), metadata.get("val_miou")
    trained_on = f"{dataset.trained_on}; split: {splits}" if splits else dataset.trained_on
    if float(metadata.get("scenes", 0)) > 0:
        share = metadata["scenes"]
        trained_on += f"; and rendered street scenes (training/synthetic), a share of {share} of the pictures"
    if balanced := metadata.get("balanced_on"):
        trained_on += f"; class scores balanced on {balanced} (training/logit_adjustment.py)"
    metrics = {f"{name}_val_miou_in_training": float(miou)} if miou else {}
    return Provenance(dataset.classes, trained_on, dataset.terms, metrics)


def _read_classes(path: Path) -> tuple[ClassEntry, ...]:
    try:
        content = json.loads(path.read_text())
        return TypeAdapter(tuple[ClassEntry, ...]).validate_python(content)
    except (OSError, ValueError, ValidationError) as error:
        raise ValueError(
            f'{path} is not a list of classes such as [{{"name": "road", "color": [128, 64, 128]}}, ...]: {error}'
        ) from None
