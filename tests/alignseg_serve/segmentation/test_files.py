import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from alignseg_serve import Segmenter, cli
from alignseg_serve.segmentation.backends import local_backend
from alignseg_serve.segmentation.files import INTERRUPTED, plan, run
from alignseg_serve.segmentation.outputs import Options
from alignseg_serve.segmentation.record import FILE_NAME, ModelId, Record
from service.errors import AlignSegError
from service.settings import Settings
from tests.support import tiny_model
from tests.support.fake_engine import FakeEngine, encoded, manifest, striped


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name in ("a.png", "b.jpg", "sub/a.png", "sub/deep/c.bmp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        kind = {"jpg": "JPEG"}.get(name[-3:], name[-3:].upper())
        (folder / name).write_bytes(encoded(striped(), kind))
    (folder / "notes.txt").write_text("not an image")
    return folder


def segment(
    source: Path, out: Path, engine: FakeEngine | None = None, *, overwrite: bool = False, **options: Any
) -> tuple[int, str]:
    console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    segmenter = Segmenter.from_engine(manifest(), engine or FakeEngine(), Settings(max_pixels=1_000_000))
    code = run([source], out, local_backend(segmenter), console, options=Options(**options), overwrite=overwrite)
    console.file.close()
    return code, console.export_text()


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != FILE_NAME)


def test_a_folder_keeps_its_subfolders(images: Path, tmp_path: Path) -> None:
    code, output = segment(images, tmp_path / "out")
    assert code == 0
    assert "4 masks written" in output
    assert names(tmp_path / "out") == ["a.png", "b.png", "sub/a.png", "sub/deep/c.png"]
    mask = Image.open(tmp_path / "out" / "a.png")
    np.testing.assert_array_equal(np.asarray(mask), striped()[..., 0])


def test_one_image_with_overlay(images: Path, tmp_path: Path) -> None:
    assert segment(images / "b.jpg", tmp_path / "out", overlay=True)[0] == 0
    assert names(tmp_path / "out") == ["b.overlay.png", "b.png"]


def test_images_with_the_same_stem_get_different_masks(images: Path, tmp_path: Path) -> None:
    (images / "a.jpg").write_bytes(encoded(striped(), "JPEG"))
    segment(images, tmp_path / "out")
    assert names(tmp_path / "out") == ["a.jpg.png", "a.png.png", "b.png", "sub/a.png", "sub/deep/c.png"]


def test_a_second_run_continues(images: Path, tmp_path: Path) -> None:
    segment(images, tmp_path / "out")
    (tmp_path / "out" / "b.png").unlink()
    engine = FakeEngine()
    code, output = segment(images, tmp_path / "out", engine)
    assert (code, len(engine.batches)) == (0, 1)
    assert "3 of 4 images are already done" in output
    segment(images, tmp_path / "out", engine, overlay=True)  # the masks are there, the overlays are not
    assert len(engine.batches) == 5
    segment(images, tmp_path / "out", engine, overwrite=True)
    assert len(engine.batches) == 9


def test_invalid_images_are_listed_and_the_others_are_segmented(images: Path, tmp_path: Path) -> None:
    (images / "bad.jpg").write_bytes(b"not image!")
    (images / "b.jpg").write_bytes(encoded(striped(), "JPEG")[:200])
    code, output = segment(images, tmp_path / "out")
    assert code == 1
    assert "bad.jpg: Got 10 bytes" in output
    assert "3 masks written" in output
    assert names(tmp_path / "out") == ["a.png", "sub/a.png", "sub/deep/c.png"]


def test_ctrl_c_ends_the_run_and_says_how_to_continue(images: Path, tmp_path: Path) -> None:
    def press(batch: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        if len(engine.batches) == 3:
            raise KeyboardInterrupt

    engine = FakeEngine(before=press)
    code, output = segment(images, tmp_path / "out", engine)
    assert code == INTERRUPTED
    assert "2 of 4 images are done; run the same command to continue" in output
    assert names(tmp_path / "out") == ["a.png", "b.png"]  # nothing half-written
    assert segment(images, tmp_path / "out")[0] == 0


def test_masks_in_a_subfolder_of_the_source_are_not_input(images: Path) -> None:
    segment(images, images / "masks")
    assert len(plan([images], images / "masks", Options())) == 4


def test_the_output_folder_may_contain_the_source(images: Path) -> None:
    assert len(plan([images], images.parent, Options())) == 4


def test_overwriting_an_image_and_an_empty_folder_are_rejected(images: Path) -> None:
    with pytest.raises(AlignSegError, match="would overwrite the image"):
        plan([images / "a.png"], images, Options())
    for path in images.rglob("*.*"):
        if path.suffix != ".txt":
            path.unlink()
    with pytest.raises(AlignSegError, match="contains no image"):
        plan([images], images / "masks", Options())


def test_a_single_image_may_have_a_named_mask(images: Path, tmp_path: Path) -> None:
    code, _ = segment(images / "a.png", tmp_path / "street.png", overlay=True)
    assert code == 0
    assert (tmp_path / "street.png").is_file()
    assert (tmp_path / "street.overlay.png").is_file()
    with pytest.raises(AlignSegError, match="names a single mask"):
        plan([images], tmp_path / "masks.png", Options())
    with pytest.raises(AlignSegError, match="is a file; --out takes a folder"):
        plan([images], images / "notes.txt", Options())


def test_several_sources_are_written_to_one_folder(images: Path, tmp_path: Path) -> None:
    jobs = plan([images / "sub", images / "b.jpg"], tmp_path, Options())
    assert [str(job.mask.relative_to(tmp_path)) for job in jobs] == ["a.png", "deep/c.png", "b.png"]
    with pytest.raises(AlignSegError, match="two images would be written to the same file"):
        plan([images / "sub", images / "a.png"], tmp_path, Options())


def test_masks_beside_the_images_are_rejected(images: Path, tmp_path: Path) -> None:
    tiny_model.write(tmp_path / "model")
    command = ["segment", str(images), "-o", str(images), "--model", str(tmp_path / "model")]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == cli.USAGE_ERROR
    assert "Use another, or a subfolder" in " ".join(result.output.split())


def test_two_images_for_one_file_are_rejected(images: Path, tmp_path: Path) -> None:
    shutil.copy(images / "a.png", images / "a.overlay.png")
    with pytest.raises(AlignSegError, match="two images would be written to the same file"):
        plan([images], tmp_path / "out", Options(overlay=True))


def test_the_command(images: Path, tmp_path: Path) -> None:
    tiny_model.write(tmp_path / "model")
    out = tmp_path / "out"
    result = CliRunner().invoke(cli.app, ["segment", str(images), "-o", str(out), "--model", str(tmp_path / "model")])
    assert result.exit_code == 0, result.output
    assert len(names(out)) == 4


@pytest.mark.parametrize("command", [["serve"], ["segment", ".", "-o", "x"]])
def test_a_missing_model_is_an_error_that_names_the_fix(command: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, [*command, "--model", str(tmp_path / "none")])
    assert result.exit_code == cli.USAGE_ERROR
    assert "alignseg export" in " ".join(result.output.split())


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNSEG_MAX_QUEUE_DELAY_MS", "2.5")
    assert Settings().max_queue_delay_ms == 2.5


def test_version_option() -> None:
    assert CliRunner().invoke(cli.app, ["--version"]).output.startswith("alignseg-serve 0")


def test_an_invalid_setting_is_named_as_it_was_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNSEG_MAX_PIXELS", "many")
    output = " ".join(CliRunner().invoke(cli.app, ["serve", "--port", "70000"]).output.split())
    assert "ALIGNSEG_MAX_PIXELS: Input should be a valid integer" in output
    assert "--port: Input should be less than or equal to 65535" in output


def command(images: Path, out: Path, model: Path, *more: str) -> str:
    result = CliRunner().invoke(cli.app, ["segment", str(images), "-o", str(out), "--model", str(model), *more])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def write_model(folder: Path, version: str) -> Path:
    manifest = tiny_model.write(folder)
    (folder / "model.json").write_text(manifest.model_copy(update={"version": version}).model_dump_json())
    return folder


def test_masks_of_another_model_are_made_again(images: Path, tmp_path: Path) -> None:
    first, second = write_model(tmp_path / "first", "1"), write_model(tmp_path / "second", "2")
    out = tmp_path / "out"
    command(images, out, first)
    output = command(images, out, second)
    assert "4 of 4 masks were made by another model, with other options or from an earlier image, made again" in output
    assert "4 masks written" in output
    assert "4 of 4 images are already done" in command(images, out, second)


def test_the_mask_of_a_replaced_image_is_made_again(images: Path, tmp_path: Path) -> None:
    model, out = write_model(tmp_path / "model", "1"), tmp_path / "out"
    command(images, out, model)
    (images / "a.png").write_bytes(encoded(np.full((30, 40, 3), (0, 255, 0), np.uint8)))
    assert "1 of 4 masks were made by another model, with other options or from an earlier image" in command(
        images, out, model
    )
    assert np.asarray(Image.open(out / "a.png")).shape == (30, 40)


def test_overlays_have_a_record_of_their_own(images: Path, tmp_path: Path) -> None:
    first, second = write_model(tmp_path / "first", "1"), write_model(tmp_path / "second", "2")
    command(images, tmp_path / "out", first, "--overlay")
    command(images, tmp_path / "out", second)  # the overlays are still those of the first model
    assert "4 masks written" in command(images, tmp_path / "out", second, "--overlay")


def test_masks_without_a_record_are_kept_and_counted(images: Path, tmp_path: Path) -> None:
    model, out = write_model(tmp_path / "model", "1"), tmp_path / "out"
    command(images, out, model)
    (out / FILE_NAME).unlink()
    (out / "a.png").write_bytes(b"drawn by hand")
    assert "4 of these masks have no record of their model; --overwrite replaces them" in command(images, out, model)
    assert (out / "a.png").read_bytes() == b"drawn by hand"


def test_a_named_mask_has_a_record_too(images: Path, tmp_path: Path) -> None:
    first, second = write_model(tmp_path / "first", "1"), write_model(tmp_path / "second", "2")
    out = tmp_path / "masks" / "a.png"
    command(images / "a.png", out, first)
    assert "1 of 1 images are already done" in command(images / "a.png", out, first)
    assert "1 masks written" in command(images / "a.png", out, second)


def test_a_record_that_was_cut_off_loses_its_last_line_only(images: Path, tmp_path: Path) -> None:
    model = ModelId("m", "1", "abc")
    for name in ("x.png", "y.png"):
        Record(tmp_path).add(tmp_path / name, images / "a.png", model)
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-5])
    Record(tmp_path).add(tmp_path / "z.png", images / "a.png", model)
    record = Record(tmp_path)
    assert [record.matches(tmp_path / n, images / "a.png", model) for n in ("x.png", "y.png", "z.png")] == [
        True,
        False,
        True,
    ]
    assert record.matches(tmp_path / "x.png", images / "a.png", ModelId("m", "1"))  # a server does not state the hash
    assert not record.matches(tmp_path / "x.png", images / "a.png", ModelId("m", "1", "def"))


def test_the_model_is_not_loaded_when_nothing_is_left_to_do(images: Path, tmp_path: Path) -> None:
    model, out = write_model(tmp_path / "model", "1"), tmp_path / "out"
    command(images, out, model)
    (model / "model.onnx").unlink()
    assert "0 masks written" in command(images, out, model)
    (out / "a.png").unlink()
    result = CliRunner().invoke(cli.app, ["segment", str(images), "-o", str(out), "--model", str(model)])
    assert result.exit_code == cli.USAGE_ERROR
    assert "3 of 4 images are done" in " ".join(result.output.split())


@pytest.mark.parametrize("name", ["mask.jpg", "mask.JPEG", "mask.webp", "mask.tif", "mask.npy"])
def test_a_mask_of_another_format_is_rejected(name: str, images: Path, tmp_path: Path) -> None:
    with pytest.raises(AlignSegError, match=r"masks are PNG files.*mask\.png"):
        plan([images / "a.png"], tmp_path / name, Options())
    assert len(plan([images], tmp_path / "masks.v2", Options())) == 4
    (tmp_path / name).mkdir()
    assert len(plan([images], tmp_path / name, Options())) == 4


def test_other_files_are_counted_by_kind(images: Path, tmp_path: Path) -> None:
    for name in ("b.heic", "sub/c.HEIC", "README", ".DS_Store"):
        (images / name).write_bytes(b"")
    output = segment(images, tmp_path / "out")[1]
    assert "files skipped that are not named as images: 2 .heic, 1 .txt, 1 without suffix" in output


def test_hidden_folders_are_not_searched(images: Path, tmp_path: Path) -> None:
    for name in (".git/a.png", "sub/.thumbnails/large/b.png"):
        (images / name).parent.mkdir(parents=True)
        shutil.copy(images / "a.png", images / name)
    assert segment(images, tmp_path / "out")[0] == 0
    assert names(tmp_path / "out") == ["a.png", "b.png", "sub/a.png", "sub/deep/c.png"]
