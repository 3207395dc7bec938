"""Every place of the project that reads images: deep grey, transparency and colors as the server has them."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from alignseg_serve.client.schemas import encode_image
from model_export.onnx_export import parity
from service.imaging.decode import decode, decode_file
from training import visualize_offsets
from training.data.datasets import IGNORED, Dataset, DatasetError, Pair

ROOT = Path(__file__).parents[1]
PRODUCT = ("service", "model_export", "training", "alignseg_serve")
LEVELS = np.linspace(0, 255, 24 * 16).reshape(16, 24).round().astype(np.uint8)
GREY = np.repeat(LEVELS[..., None], 3, axis=2)
Reader = Callable[[Path], npt.NDArray[np.uint8]]


def by_data_set(path: Path) -> npt.NDArray[np.uint8]:
    labels = path.with_name("labels.png")
    Image.fromarray(np.full(LEVELS.shape, IGNORED, dtype=np.uint8)).save(labels)
    data_set = Dataset("test", (), {}, lambda root, split: [], "")
    return data_set.read(Pair(path, labels))[0]


def by_client(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return decode(encode_image(image), 10_000)


READERS = [decode_file, parity.read_image, visualize_offsets.read_image, by_data_set, by_client]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("name", "values", "tolerance"),
    [
        ("16.png", LEVELS.astype(np.uint16) * 257, 0),
        ("16.tif", LEVELS.astype(np.uint16) * 257, 0),
        ("8 in 16.png", LEVELS.astype(np.uint16), 0),
        ("float.tif", LEVELS.astype(np.float32) / 255, 0),
        ("32.tif", LEVELS.astype(np.int32) * 257, 0),
        ("8.png", LEVELS, 0),
        ("8.jpg", LEVELS, 6),
    ],
    ids=str,
)
def test_grey_of_every_depth(
    read: Reader, name: str, values: npt.NDArray[np.generic], tolerance: int, tmp_path: Path
) -> None:
    Image.fromarray(values).save(tmp_path / name)
    assert np.abs(read(tmp_path / name).astype(int) - GREY).max() <= tolerance


@pytest.mark.parametrize("read", READERS)
def test_transparent_pixels_lie_on_white(read: Reader, tmp_path: Path) -> None:
    rgba = np.dstack([GREY, np.where(LEVELS < 100, 0, 255).astype(np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), np.where(GREY < 100, 255, GREY))


def test_a_data_set_names_the_image_that_is_not_read(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGBA", (24, 16), (9, 9, 9, 0)).save(out, "PNG")
    for content in (out.getvalue(), b"no image"):
        (tmp_path / "frame.png").write_bytes(content)
        with pytest.raises(DatasetError, match=r"frame\.png: (Every pixel|Got 8 bytes)"):
            by_data_set(tmp_path / "frame.png")


def test_no_other_code_converts_images_to_rgb() -> None:
    conversions = {
        str(path.relative_to(ROOT))
        for package in PRODUCT
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"""\.convert\(\s*["']RGB["']""", path.read_text())
    }
    # The third converts a palette image that the service has drawn itself.
    assert conversions == {
        "service/imaging/pillow_rgb.py",
        "alignseg_serve/client/pillow_rgb.py",
        "service/rendering/images.py",
    }
