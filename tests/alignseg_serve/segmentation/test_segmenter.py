"""`alignseg_serve.segment`: the first use, in Python and without a server."""

import io
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import alignseg_serve
from alignseg_serve import Segmenter
from alignseg_serve.segmentation import segmenter as segmenter_module
from service.errors import BadRequest, CorruptImage, ManifestError, SettingsError, UnsupportedImage
from service.settings import Settings
from tests.support import tiny_model
from tests.support.fake_engine import COLORS, FakeEngine, encoded, manifest, opened, striped

REPOSITORY = Path(__file__).resolve().parents[3]
SCENE = REPOSITORY / "docs" / "scene.png"
CLASSES_IN_SCENE = 11


def with_fake_engine(engine: FakeEngine | None = None, **settings: int) -> Segmenter:
    return Segmenter.from_engine(manifest(), engine or FakeEngine(), Settings(**settings))


@pytest.fixture
def default_segmenter() -> Generator[None, None, None]:
    """A fresh module-level Segmenter, closed afterwards."""
    segmenter_module._default.cache_clear()
    yield
    segmenter_module._default().close()
    segmenter_module._default.cache_clear()


@pytest.mark.usefixtures("default_segmenter")
def test_the_five_lines_of_the_readme(tmp_path: Path) -> None:
    from alignseg_serve import segment

    result = segment(SCENE)
    assert result.mask.shape == (720, 960)
    assert result.mask.dtype == np.uint8
    assert len(result.classes) == CLASSES_IN_SCENE
    assert sum(entry.pixels for entry in result.classes) == 720 * 960
    assert {entry.name: entry.color for entry in result.classes}["sky"] == (128, 128, 128)
    result.save_overlay(tmp_path / "overlay.png")
    result.save_mask(tmp_path / "mask.png")
    assert opened((tmp_path / "overlay.png").read_bytes()).size == (960, 720)
    np.testing.assert_array_equal(np.asarray(opened((tmp_path / "mask.png").read_bytes())), result.mask)
    assert segmenter_module._default() is segmenter_module._default()  # loaded once


def test_importing_the_package_loads_no_runtime() -> None:
    script = (
        "import sys, alignseg_serve; assert 'numpy' not in sys.modules\n"
        "from alignseg_serve import segment, Segmenter, Segmentation\n"
        "print([n for n in ('openvino', 'onnxruntime', 'httpx', 'torch', 'fastapi') if n in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)  # noqa: S603
    assert output.stdout.strip() == "[]"


def test_a_missing_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
        alignseg_serve.segmnt  # noqa: B018


def test_every_kind_of_image_gives_the_same_mask(tmp_path: Path) -> None:
    pixels = striped(64, 96)
    (tmp_path / "a.png").write_bytes(encoded(pixels))
    with with_fake_engine() as segmenter:
        expected = segmenter.segment(pixels)
        for image in (tmp_path / "a.png", str(tmp_path / "a.png"), encoded(pixels), Image.fromarray(pixels)):
            result = segmenter.segment(image)
            np.testing.assert_array_equal(result.mask, expected.mask)
            assert result.overlay_png == expected.overlay_png
    assert [expected.mask[30, x] for x in (12, 36, 60, 84)] == [0, 1, 2, 3]
    assert [(entry.name, entry.fraction) for entry in expected.classes] == [(name, 0.25) for name in COLORS]


def test_pillow_images_of_other_modes_are_read_as_files_of_that_mode() -> None:
    grey, rgba = Image.fromarray(striped(16, 24)).convert("L"), Image.fromarray(striped(16, 24)).convert("RGBA")
    rgba.putalpha(0)  # transparent pixels lie on white
    rgba.alpha_composite(rgba.crop((0, 0, 4, 16)).convert("RGB").convert("RGBA"))
    with with_fake_engine() as segmenter:
        for image in (grey, rgba, grey.convert("1"), rgba.convert("CMYK"), rgba.convert("P")):
            file = io.BytesIO()
            (image if image.mode != "CMYK" else image.convert("RGB")).save(file, "PNG")
            np.testing.assert_array_equal(segmenter.segment(image).mask, segmenter.segment(file.getvalue()).mask)
        assert (segmenter.segment(rgba).mask[:, 4:] == 255 % len(COLORS)).all()
        rgba.putalpha(0)
        with pytest.raises(UnsupportedImage, match="alpha is 0 everywhere"):
            segmenter.segment(rgba)


def test_confidence_tiles_and_classes() -> None:
    pixels = striped(64, 96)
    engine = FakeEngine(max_batch=4)
    with with_fake_engine(engine) as segmenter:
        result = segmenter.segment(pixels, confidence=True, tile=True, classes=["sky", "3"])
    assert [(entry.name, entry.confidence) for entry in result.classes] == [("sky", 0.7843), ("car", 0.7843)]
    assert result.mask[30, [12, 36, 60, 84]].tolist() == [255, 1, 255, 3]
    assert result.confidence is not None
    assert (result.confidence == 200).all()
    assert result.confidence_png is not None
    assert (np.asarray(opened(result.confidence_png)) == 200).all()
    assert len(engine.batches) > 1
    assert max(shape[0] for shape in engine.batches) == 4  # tiles share batches
    assert (result.input_size, result.tiles) == ((96, 64), sum(shape[0] for shape in engine.batches))
    mask_file = opened(result.mask_png)
    np.testing.assert_array_equal(np.asarray(mask_file), result.mask)
    assert np.asarray(mask_file.convert("RGBA"))[30, [12, 36], 3].tolist() == [0, 255]  # others are transparent


def test_options_that_the_model_does_not_have_are_rejected() -> None:
    engine = FakeEngine()
    engine.has_confidence = False
    with with_fake_engine(engine) as segmenter:
        with pytest.raises(BadRequest, match="has no confidence output"):
            segmenter.segment(striped(), confidence=True)
        with pytest.raises(BadRequest, match="zebra"):
            segmenter.segment(striped(), classes=["zebra"])
    assert engine.batches == []
    assert engine.closed


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (7, TypeError, "image: got int; expected a path"),
        (np.zeros((4, 4), np.uint8), ValueError, r"expected uint8 \(H, W, 3\)"),
        (np.zeros((4, 4, 3)), ValueError, "got an array float64"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"\(0, 4, 3\)"),
        ("missing.png", FileNotFoundError, "missing.png"),
        (b"hello", UnsupportedImage, "5 bytes"),
        (encoded(striped())[:-30], CorruptImage, "decode"),
    ],
)
def test_what_is_not_an_image_is_rejected(image: object, error: type[Exception], message: str) -> None:
    with with_fake_engine() as segmenter, pytest.raises(error, match=message):
        segmenter.segment(image)  # type: ignore[arg-type]


def test_a_large_jpeg_has_the_same_mask_with_and_without_its_overlay() -> None:
    """Without the overlay the decoder reduces the JPEG; the mask may not depend on it."""
    pixels = np.asarray(Image.fromarray(striped(24, 32)).resize((640, 480), Image.Resampling.NEAREST))
    jpeg = encoded(pixels, "JPEG", quality=95)
    with with_fake_engine() as segmenter:
        reduced, full = segmenter.segment(jpeg), segmenter.segment(jpeg, overlay=True)
        np.testing.assert_array_equal(reduced.mask, full.mask)
        assert reduced.overlay_png == full.overlay_png
        assert opened(reduced.overlay_png).size == (reduced.width, reduced.height) == (640, 480)


def test_a_result_does_not_change_when_another_image_is_segmented(tmp_path: Path) -> None:
    tiny_model.write(tmp_path / "model", buckets=((48, 64),))
    red, blue = np.zeros((2, 48, 64, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    for engine in ("onnxruntime-cpu", "openvino-cpu"):
        with Segmenter(tmp_path / "model", engine) as segmenter:
            first = segmenter.segment(red, confidence=True)
            segmenter.segment(blue, confidence=True)
        assert (first.mask == 0).all()
        assert [entry.name for entry in first.classes] == ["red"]


def test_threads_share_a_segmenter() -> None:
    overlapping, running = [], threading.Lock()

    def infer_alone(_batch: object) -> None:
        overlapping.append(not running.acquire(blocking=False))
        threading.Event().wait(0.005)
        running.release()

    with with_fake_engine(FakeEngine(before=infer_alone)) as segmenter:
        threads = [threading.Thread(target=segmenter.segment, args=(striped(),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert overlapping == [False] * 8


def test_a_missing_model_and_unknown_engines_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ManifestError, match="does not exist"):
        Segmenter(tmp_path)
    with pytest.raises(SettingsError, match=r"^engine: .*got 'cuda'"):
        Segmenter(engine="cuda")
    monkeypatch.setenv("ALIGNSEG_MAX_PIXELS", "many")
    with pytest.raises(SettingsError, match=r"^ALIGNSEG_MAX_PIXELS: .*got 'many'"):
        Segmenter()
