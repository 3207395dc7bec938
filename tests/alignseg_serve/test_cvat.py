"""alignseg_serve.cvat, loaded by cvat-cli and driven by the SDK's own driver; only CVAT's server is replaced."""

import logging
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.alignseg_serve.annotation.test_keyhole import filled
from tests.support.fake_engine import COLORS, striped
from tests.support.live_server import live

pytest.importorskip("cvat_sdk", reason="needs cvat-sdk: pip install -e '.[cvat]'")
pytest.importorskip("cvat_cli", reason="needs cvat-cli: pip install -e '.[cvat]'")

import cvat_sdk.auto_annotation as cvataa
from cvat_cli._internal.common import FunctionLoader
from cvat_sdk import models
from cvat_sdk.auto_annotation import driver
from cvat_sdk.masks import decode_mask

IMAGE = striped()
TASK_LABELS = {"ground": 71, "car": 72, "person": 73}  # of the labelling project, with its own ids


class Uploaded:
    """Stands for cvat_sdk.Client: keeps what the driver uploads."""

    def __init__(self) -> None:
        self.logger = logging.getLogger("cvat")
        self.tasks = SimpleNamespace(api=self)
        self.shapes: list[models.LabeledShapeRequest] = []

    def partial_update_annotations(self, action: str, task_id: int, **request: Any) -> None:
        self.shapes += request["patched_labeled_data_request"].shapes


@pytest.fixture
def uploaded(monkeypatch: pytest.MonkeyPatch) -> Uploaded:
    sample = SimpleNamespace(
        frame_name="a.png", frame_index=5, media=SimpleNamespace(load_image=lambda: Image.fromarray(IMAGE))
    )
    labels = [SimpleNamespace(id=i, name=n, type="any", sublabels=[], attributes=[]) for n, i in TASK_LABELS.items()]
    monkeypatch.setattr(driver, "TaskDataset", lambda *_, **__: SimpleNamespace(labels=labels, samples=[sample]))
    return Uploaded()


def load(**parameters: str) -> Any:
    return FunctionLoader("alignseg_serve.cvat", None, parameters).load()


def annotate(uploaded: Uploaded, url: str, **options: Any) -> list[models.LabeledShapeRequest]:
    with closing(load(server=url, classes="road=ground,tree=ground,car")) as function:
        cvataa.annotate_task(uploaded, 1, function, **options)  # type: ignore[arg-type]
    return uploaded.shapes


def expected(label: str) -> np.ndarray:
    return np.isin(IMAGE[..., 0], [0, 2] if label == "ground" else [3])


def test_masks_decode_to_the_server_s(uploaded: Uploaded) -> None:
    with live() as url:
        shapes = annotate(uploaded, url)
    assert [(shape.label_id, shape.frame, str(shape.type)) for shape in shapes] == [(71, 5, "mask"), (72, 5, "mask")]
    for shape, label in zip(shapes, ("ground", "car"), strict=True):
        mask = decode_mask(shape.points, image_width=24, image_height=16)
        np.testing.assert_array_equal(mask, expected(label))


def test_polygons_fill_to_the_server_s(uploaded: Uploaded) -> None:
    with live() as url:
        shapes = annotate(uploaded, url, conv_mask_to_poly=True)
    assert [shape.label_id for shape in shapes] == [71, 71, 72]  # the ground is in two parts
    for label in ("ground", "car"):
        own = [shape.points for shape in shapes if shape.label_id == TASK_LABELS[label]]
        rings = [[[int(x), int(y)] for x, y in zip(p[::2], p[1::2], strict=True)] for p in own]
        np.testing.assert_array_equal(sum(filled(ring, 16, 24) for ring in rings), expected(label))


def test_the_threshold_leaves_out_classes_and_gives_scores(uploaded: Uploaded) -> None:
    with live() as url:
        shapes = annotate(uploaded, url, conf_threshold=0.5)
        assert [shape.score for shape in shapes] == [pytest.approx(200 / 255, abs=1e-4)] * 2
        uploaded.shapes = []
        assert annotate(uploaded, url, conf_threshold=0.9) == []


def test_labels_are_the_server_s_classes_in_their_colours() -> None:
    with live() as url, closing(load(server=url)) as function:
        labels = function.spec.labels
    assert [(label.id, label.name) for label in labels] == list(enumerate(COLORS))
    assert labels[0].color == "#804080"


def test_a_label_that_the_task_lacks_is_an_error_of_the_driver(uploaded: Uploaded) -> None:
    with (
        live() as url,
        closing(load(server=url)) as function,
        pytest.raises(cvataa.BadFunctionError, match="'road' is not in dataset"),
    ):
        cvataa.annotate_task(uploaded, 1, function)  # type: ignore[arg-type]
