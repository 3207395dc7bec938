import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from alignseg_serve import cli
from alignseg_serve.segment.files import INTERRUPTED, plan, run
from alignseg_serve.segment.local_backend import locally
from service.errors import AlignSegError
from service.settings import Settings
from tests.support import tiny_model
from tests.support.fake_engine import FakeEngine, encoded, manifest, striped

MODEL = manifest()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name in ("a.png", "b.jpg", "sub/a.png", "sub/deep/c.bmp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        kind = {"jpg": "JPEG"}.get(name[-3:], name[-3:].upper())
        (folder / name).write_bytes(encoded(striped(), kind))
    (folder / "notes.txt").write_text("no picture")
    return folder


def segment(source: Path, out: Path, engine: FakeEngine | None = None, **flags: bool) -> tuple[int, str]:
    console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    flags = {"overlay": False, "overwrite": False, **flags}
    code = run([source], out, locally(MODEL, engine or FakeEngine(), 1_000_000), console, **flags)
    console.file.close()
    return code, console.export_text()


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_folder_keeps_its_subfolders(pictures: Path, tmp_path: Path) -> None:
    code, told = segment(pictures, tmp_path / "out")
    assert code == 0
    assert "4 written" in told
    assert names(tmp_path / "out") == ["a.png", "b.png", "sub/a.png", "sub/deep/c.png"]
    mask = Image.open(tmp_path / "out" / "a.png")
    np.testing.assert_array_equal(np.asarray(mask), striped()[..., 0])


def test_one_picture_with_overlay(pictures: Path, tmp_path: Path) -> None:
    assert segment(pictures / "b.jpg", tmp_path / "out", overlay=True)[0] == 0
    assert names(tmp_path / "out") == ["b.overlay.png", "b.png"]


def test_pictures_of_one_name_do_not_overwrite_one_another(pictures: Path, tmp_path: Path) -> None:
    (pictures / "a.jpg").write_bytes(encoded(striped(), "JPEG"))
    segment(pictures, tmp_path / "out")
    assert names(tmp_path / "out") == ["a.jpg.png", "a.png.png", "b.png", "sub/a.png", "sub/deep/c.png"]


def test_resumes(pictures: Path, tmp_path: Path) -> None:
    segment(pictures, tmp_path / "out")
    (tmp_path / "out" / "b.png").unlink()
    engine = FakeEngine()
    code, told = segment(pictures, tmp_path / "out", engine)
    assert (code, len(engine.batches)) == (0, 1)
    assert "3 of 4 are done already" in told
    segment(pictures, tmp_path / "out", engine, overlay=True)  # the masks are there, the overlays are not
    assert len(engine.batches) == 5
    segment(pictures, tmp_path / "out", engine, overwrite=True)
    assert len(engine.batches) == 9


def test_bad_pictures_are_listed_and_the_rest_is_done(pictures: Path, tmp_path: Path) -> None:
    (pictures / "bad.jpg").write_bytes(b"no picture")
    (pictures / "b.jpg").write_bytes(encoded(striped(), "JPEG")[:200])
    code, told = segment(pictures, tmp_path / "out")
    assert code == 1
    assert "bad.jpg: got 10 bytes" in told
    assert "3 written" in told
    assert names(tmp_path / "out") == ["a.png", "sub/a.png", "sub/deep/c.png"]


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(pictures: Path, tmp_path: Path) -> None:
    def press(batch: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        if len(engine.batches) == 3:
            raise KeyboardInterrupt

    engine = FakeEngine(before=press)
    code, told = segment(pictures, tmp_path / "out", engine)
    assert code == INTERRUPTED
    assert "2 of 4 are done; the same command goes on" in told
    assert names(tmp_path / "out") == ["a.png", "b.png"]  # nothing half-written
    assert segment(pictures, tmp_path / "out")[0] == 0


def test_an_out_folder_inside_the_source_is_no_source(pictures: Path) -> None:
    segment(pictures, pictures / "masks")
    assert len(plan([pictures], pictures / "masks", overlay=False)) == 4


def test_an_out_folder_around_the_source_is_fine(pictures: Path) -> None:
    assert len(plan([pictures], pictures.parent, overlay=False)) == 4


def test_what_can_not_be_done_at_all(pictures: Path) -> None:
    with pytest.raises(AlignSegError, match="would overwrite the picture"):
        plan([pictures / "a.png"], pictures, overlay=False)
    for picture in pictures.rglob("*.*"):
        if picture.suffix != ".txt":
            picture.unlink()
    with pytest.raises(AlignSegError, match="holds no picture"):
        plan([pictures], pictures / "masks", overlay=False)


def test_one_picture_may_have_a_named_mask(pictures: Path, tmp_path: Path) -> None:
    code, _ = segment(pictures / "a.png", tmp_path / "street.png", overlay=True)
    assert code == 0
    assert (tmp_path / "street.png").is_file()
    assert (tmp_path / "street.overlay.png").is_file()
    with pytest.raises(AlignSegError, match="the name of one mask"):
        plan([pictures], tmp_path / "masks.png", overlay=False)
    with pytest.raises(AlignSegError, match="is a file; -o takes a folder"):
        plan([pictures], pictures / "notes.txt", overlay=False)


def test_several_sources_go_to_one_folder(pictures: Path, tmp_path: Path) -> None:
    jobs = plan([pictures / "sub", pictures / "b.jpg"], tmp_path, overlay=False)
    assert [str(job.mask.relative_to(tmp_path)) for job in jobs] == ["a.png", "deep/c.png", "b.png"]
    with pytest.raises(AlignSegError, match="two pictures would both be written"):
        plan([pictures / "sub", pictures / "a.png"], tmp_path, overlay=False)


def test_masks_among_the_pictures_are_refused(pictures: Path, tmp_path: Path) -> None:
    tiny_model.write(tmp_path / "model")
    command = ["segment", str(pictures), "-o", str(pictures), "--model", str(tmp_path / "model")]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == cli.UNUSABLE
    assert "Choose another, or one inside it" in " ".join(result.output.split())


def test_two_pictures_for_one_file(pictures: Path, tmp_path: Path) -> None:
    shutil.copy(pictures / "a.png", pictures / "a.overlay.png")
    with pytest.raises(AlignSegError, match="two pictures would both be written"):
        plan([pictures], tmp_path / "out", overlay=True)


def test_the_command(pictures: Path, tmp_path: Path) -> None:
    tiny_model.write(tmp_path / "model")
    out = tmp_path / "out"
    result = CliRunner().invoke(cli.app, ["segment", str(pictures), "-o", str(out), "--model", str(tmp_path / "model")])
    assert result.exit_code == 0, result.output
    assert len(names(out)) == 4


@pytest.mark.parametrize("command", [["serve"], ["segment", ".", "-o", "x"]])
def test_without_a_model_it_says_what_to_do(command: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, [*command, "--model", str(tmp_path / "none")])
    assert result.exit_code == cli.UNUSABLE
    assert "alignseg export" in " ".join(result.output.split())


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNSEG_MAX_QUEUE_DELAY_MS", "2.5")
    assert Settings().max_queue_delay_ms == 2.5


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(cli.app, ["--version"]).output.startswith("alignseg-serve 0")


def test_a_bad_setting_is_named_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNSEG_MAX_PIXELS", "many")
    told = " ".join(CliRunner().invoke(cli.app, ["serve", "--port", "70000"]).output.split())
    assert "ALIGNSEG_MAX_PIXELS: Input should be a valid integer" in told
    assert "--port: Input should be less than or equal to 65535" in told
