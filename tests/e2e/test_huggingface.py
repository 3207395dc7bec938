"""The server with huggingface_hub's own InferenceClient, unmodified."""

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.support.fake_engine import COLORS, FakeEngine, encoded, striped
from tests.support.live_server import live

PIXELS = striped(64, 96)


@pytest.fixture(scope="module")
def server() -> Generator[str, None, None]:
    with live() as url:
        yield url


@pytest.mark.parametrize("kind", ["bytes", "path"])
def test_each_class_has_a_label_a_score_and_a_mask(server: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "street.png"
    path.write_bytes(encoded(PIXELS))
    entries = InferenceClient(server).image_segmentation(path.read_bytes() if kind == "bytes" else path)
    assert [entry.label for entry in entries] == list(COLORS)
    assert [entry.score for entry in entries] == [0.7843] * 4  # 200 of 255
    for i, entry in enumerate(entries):
        mask = np.asarray(entry.mask)
        assert (mask.shape, mask.dtype) == ((64, 96), np.uint8)
        assert mask[30, 12 + 24 * i] == 255
        assert abs(np.count_nonzero(mask) / mask.size - 0.25) < 0.05


def test_parameters_are_accepted_and_threshold_applies(server: str) -> None:
    client = InferenceClient(model=server)
    image = encoded(PIXELS)
    assert len(client.image_segmentation(image, threshold=0.5, subtask="semantic", mask_threshold=0.5)) == 4
    assert client.image_segmentation(image, threshold=0.9) == []


def test_a_phones_large_jpeg_fits_into_the_json(server: str) -> None:
    """huggingface_hub sends JSON as soon as there is a parameter; @huggingface/inference always does."""
    noise = np.random.default_rng(0).integers(0, 256, (1400, 2400, 3), dtype=np.uint8)
    image = encoded(noise, "JPEG", quality=96, subsampling=0)
    assert len(image) > 6.3e6
    assert len(InferenceClient(server).image_segmentation(image, threshold=0.01)) == 4


def test_a_model_without_confidence_gives_null_scores() -> None:
    engine = FakeEngine()
    engine.has_confidence = False
    with live(engine) as url:
        client = InferenceClient(url)
        assert [entry.score for entry in client.image_segmentation(encoded(PIXELS))] == [None] * 4
        with pytest.raises(HfHubHTTPError, match="confidence"):
            client.image_segmentation(encoded(PIXELS), threshold=0.5)


def test_invalid_requests_are_rejected(server: str) -> None:
    client = InferenceClient(server)
    for image, parameters, status in (
        (b"hello", {}, 415),
        (b"hello", {"threshold": 0.5}, 415),
        (encoded(PIXELS), {"subtask": "panoptic"}, 400),
        (encoded(PIXELS), {"threshold": 7.0}, 400),
    ):
        with pytest.raises(HfHubHTTPError) as raised:
            client.image_segmentation(image, **parameters)  # type: ignore[arg-type]
        assert raised.value.response.status_code == status
