"""Folders as they are on real disks: links, metadata of macOS, and names as long as file systems allow."""

import os
from pathlib import Path

import pytest

from alignseg_serve.ray_job import inputs, stages
from alignseg_serve.ray_job.storage import StoragePath, open_path
from alignseg_serve.segmentation.files import plan
from alignseg_serve.segmentation.image_files import is_image, output_name
from alignseg_serve.segmentation.outputs import Options
from service.files import atomic_replace
from tests.alignseg_serve.segmentation.test_files import names, segment
from tests.support.fake_engine import encoded, striped

PNG = encoded(striped())


def write(*paths: Path, data: bytes = PNG) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def ray_keys(source: Path, out: Path) -> list[str]:
    """The images that a job with Ray reads."""
    rows = [
        row for part in inputs.parts(str(source)) for row in inputs.images(part, open_path(str(out)), lambda key: True)
    ]
    assert all(inputs.read(row) for row in rows)
    return sorted(row["key"] for row in rows)


def test_metadata_of_macos_is_skipped_and_counted(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write(folder / "a.png", folder / "__MACOSX.png", folder / "_b.png", folder / "x__MACOSX" / "c.png")
    write(folder / "._a.png", folder / "sub" / "._b.jpg", folder / "__MACOSX" / "in" / "d.png", data=b"\0\5\x16\7")
    code, output = segment(folder, out)
    assert code == 0, output
    assert "4 masks written" in output
    assert "0 failed" in output
    assert "Metadata of macOS skipped: 3, such as" in output
    assert names(out) == ["__MACOSX.png", "_b.png", "a.png", "x__MACOSX/c.png"]
    assert ray_keys(folder, out) == ["__MACOSX.png", "_b.png", "a.png", "x__MACOSX/c.png"]


def test_an_image_given_by_name_is_segmented_whatever_its_name(tmp_path: Path) -> None:
    write(tmp_path / "._a.png")
    assert segment(tmp_path / "._a.png", tmp_path / "out")[0] == 0


def test_a_folder_with_nothing_but_metadata_has_no_image(tmp_path: Path) -> None:
    write(tmp_path / "in" / "._a.png")
    with pytest.raises(Exception, match="contains no image"):
        plan([tmp_path / "in"], tmp_path / "out", Options())
    with pytest.raises(Exception, match="contains no image"):
        inputs.parts(str(tmp_path / "in"))


def test_linked_folders_and_files_are_followed(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write(tmp_path / "elsewhere" / "deep" / "b.png", folder / "a.png")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(Path("..") / "elsewhere" / "deep")
    (folder / "c.png").symlink_to(tmp_path / "elsewhere" / "deep" / "b.png")
    (tmp_path / "source").symlink_to(folder)
    expected = ["a.png", "again/b.png", "c.png", "link/deep/b.png"]
    for source in (folder, tmp_path / "source"):
        assert segment(source, out / source.name)[0] == 0
        assert names(out / source.name) == expected
        assert ray_keys(source, tmp_path / "ray") == expected


def test_a_link_to_a_folder_that_contains_it_is_skipped_with_a_sentence(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "in" / "masks"
    write(folder / "sub" / "a.png")
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    (folder / "dead.png").symlink_to(tmp_path / "nothing.png")
    code, output = segment(folder, out)
    assert code == 0
    assert names(out) == ["sub/a.png"]
    assert "loop is a link to a folder that contains it, skipped" in output
    assert "dead.png is a link to a file that does not exist, skipped" in output
    assert ray_keys(folder, out) == ["sub/a.png"]


def test_masks_of_an_earlier_run_are_no_input_through_a_link_either(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write(folder / "a.png")
    (folder / "results").symlink_to(out)
    for _ in range(2):
        assert segment(folder, out)[0] == 0
        assert names(out) == ["a.png"]
        assert ray_keys(folder, out) == ["a.png"]


LONG = "a" * 246  # 250 characters with .jpg
LONGEST = "ä" * 125  # 254 bytes with .png: no name can be longer


@pytest.mark.parametrize("stem", [LONG, LONGEST, "b" * 251])
def test_an_image_with_a_long_name_has_a_mask_and_an_overlay(tmp_path: Path, stem: str) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write(folder / f"{stem}.png", folder / "c.png")
    code, output = segment(folder, out, overlay=True)
    assert code == 0, output
    assert len(names(out)) == 4
    assert f"{stem}.png" in names(out)
    code, output = segment(folder, out, overlay=True)
    assert "2 of 2 images are already done" in output


def test_two_long_names_with_the_same_stem_have_different_masks(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write(folder / f"{'a' * 250}.png", folder / f"{'a' * 250}.bmp", folder / f"{'a' * 249}b.bmp")
    assert segment(folder, out)[0] == 0
    assert len(names(out)) == 3


@pytest.mark.parametrize("name", ["a.jpg", LONG + ".jpg", LONGEST + ".png", "b" * 251 + ".png"])
def test_a_job_with_ray_writes_masks_of_long_names(tmp_path: Path, name: str) -> None:
    mask: StoragePath = open_path(str(tmp_path)) / stages.mask_path(f"sub/{name}")
    mask.write(PNG)
    (written,) = (tmp_path / "sub").iterdir()
    assert written.suffix == ".png"
    assert len(os.fsencode(written.name)) <= 255


def test_short_names_are_kept() -> None:
    assert output_name("a.jpg", ".png") == "a.jpg.png"
    assert output_name("a" * 251, ".png") == "a" * 251 + ".png"
    assert len(output_name("a" * 252, ".png")) == 255


def test_a_file_with_the_longest_name_is_replaced_atomically(tmp_path: Path) -> None:
    for name in ("a" * 255, "ä" * 127, "日" * 85):
        with atomic_replace(tmp_path / name) as temporary:
            temporary.write_bytes(PNG)
        assert (tmp_path / name).read_bytes() == PNG


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a.jpg", True), ("A.JPG", True), ("s/a.tiff", True), ("a.txt", False), ("._a.jpg", False), ("s/._a.jpg", False),
     ("__MACOSX/a.jpg", False), ("s/__MACOSX/t/a.jpg", False), ("__MACOSX2/a.jpg", True),
     ("._s/a.jpg", True), ("jpg", False)],
)  # fmt: skip
def test_what_is_an_image_by_its_name(path: str, expected: bool) -> None:
    assert is_image(path) is expected
