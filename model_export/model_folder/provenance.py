"""Where a checkpoint comes from: its classes, its training data and the terms of use."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
    data: name of the data set whose classes the network has; None: the one in the metadata.
    classes: JSON file [{"name": ..., "color": [r, g, b]}, ...]; None: those of the data set.
    Raises ValueError when the classes are unknown, or their number is not the network's.
    """
    trained_on = metadata.get("data", "")
    name = data or trained_on
    if classes is not None:
        entries = _read_classes(classes)
    elif name in DATASETS:
        entries = DATASETS[name].classes
    else:
        raise ValueError(_unknown_classes(name, num_classes))
    if len(entries) != num_classes:
        raise ValueError(
            f"{classes or name} has {len(entries)} classes, expected {num_classes} as in the network. "
            "Pass the matching --data or --classes."
        )
    # --data names the classes. What a checkpoint was trained on, and so its terms, is known only if it says so.
    known = DATASETS.get(trained_on)
    if known is None:
        return Provenance(entries, trained_on=trained_on or "unknown", terms="unknown")
    return _with_training(replace(known, classes=entries), trained_on, metadata)


def _unknown_classes(name: str, num_classes: int) -> str:
    if not name:
        return (
            f"the checkpoint does not record its data set, so the names of its {num_classes} classes are unknown. Set "
            f"them with --data {' or '.join(DATASETS)}, or give names and colors in a file with --classes FILE.json."
        )
    near = difflib.get_close_matches(name.lower(), DATASETS, n=1)
    return (
        f"got the data set {name!r}, expected one of {', '.join(DATASETS)}."
        + (f" Did you mean --data {near[0]}?" if near else "")
        + " Give names and colors of other classes in a file with --classes FILE.json."
    )


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
