"""Where a checkpoint comes from: its classes, its training data and the terms of use."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from model_export.model_folder import class_tables
from service.model_folder.manifest import ClassEntry


@dataclass(frozen=True, slots=True)
class Provenance:
    """classes: by id. terms: of use. metrics: measured by the training, e.g. {"camvid_val_miou": 0.6}."""

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
    """The provenance of a checkpoint.

    metadata: strings that the training stored in it ("data", "train_on", "val_miou"), possibly none.
    data: name of the data set; None: the one in the metadata.
    classes: JSON file [{"name": ..., "color": [r, g, b]}, ...]; None: those of the data set.
    Raises ValueError when the classes are unknown, or their number is not the network's.
    """
    name = data or metadata.get("data")
    if classes is not None:
        provenance = Provenance(_read_classes(classes), trained_on=name or "unknown", terms="unknown")
    elif name in DATASETS:
        provenance = _with_training(DATASETS[name], name, metadata)
    else:
        raise ValueError(
            f"the names of the {num_classes} classes are unknown: got the data set {name!r}, expected one of "
            f"{', '.join(DATASETS)}. Set it with --data, or pass a file of names and colors: --classes FILE.json."
        )
    if len(provenance.classes) != num_classes:
        raise ValueError(
            f"{classes or name} has {len(provenance.classes)} classes, expected {num_classes} as in the network. "
            "Pass the matching --data or --classes."
        )
    return provenance


def _with_training(dataset: Provenance, name: str, metadata: Mapping[str, str]) -> Provenance:
    splits, miou = metadata.get("train_on"), metadata.get("val_miou")
    trained_on = f"{dataset.trained_on}; split: {splits}" if splits else dataset.trained_on
    if float(metadata.get("scenes", 0)) > 0:
        share = metadata["scenes"]
        trained_on += f"; and rendered street scenes (training/synthetic), a share of {share} of the images"
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
            f'{path} is not a list of classes; expected [{{"name": "road", "color": [128, 64, 128]}}, ...]: {error}'
        ) from None
