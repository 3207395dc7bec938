"""`alignseg segment` with the options of POST /segment, in this process and with a server: the same files."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from alignseg_serve import cli
from alignseg_serve.class_selection import parse_classes, selected_classes
from alignseg_serve.client import ClassEntry, ClassTable
from alignseg_serve.segmentation.files import plan
from alignseg_serve.segmentation.outputs import Options
from service.errors import AlignSegError, BadRequest
from tests.alignseg_serve.segmentation.test_files import names, segment
from tests.support.fake_engine import COLORS, encoded, striped
from tests.support.live_server import live

CLASSES = ("road=ground", "tree=ground", "car")
IMAGE = striped(40, 90)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "street.png"
    path.write_bytes(encoded(IMAGE))
    return path


def command(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, ["segment", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("masks", ["rle", "polygons"])
def test_the_files_are_the_json_of_http(image: Path, tmp_path: Path, masks: str) -> None:
    query: dict[str, Any] = {"masks": masks, "classes": ",".join(CLASSES), "confidence": "true", "tile": "height"}
    with live() as url:
        served = httpx.post(f"{url}/segment", params=query, content=image.read_bytes()).raise_for_status().json()
        arguments = ("--masks", masks, "--classes", query["classes"], "--confidence", "--tile", "height")
        command(image, "-o", tmp_path / "served", "--server", url, *arguments)
    options = {"masks": masks, "classes": CLASSES, "confidence": True, "tile": "height"}
    assert segment(image, tmp_path / "local", **options)[0] == 0
    confidence = base64.b64decode(served.pop("confidence"))
    del served["timing_ms"]
    assert served["tiles"] > 1
    assert [entry["name"] for entry in served["classes"]] == ["ground", "car"]
    for folder in ("served", "local"):
        assert names(tmp_path / folder) == ["street.confidence.png", "street.json"]
        assert json.loads((tmp_path / folder / "street.json").read_bytes()) == served
        assert (tmp_path / folder / "street.confidence.png").read_bytes() == confidence


def test_classes_of_a_file_are_merged_in_the_mask(image: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("# of our project\nroad=ground\n\n tree = ground\ncar\n")
    classes = parse_classes(f"@{tmp_path / 'labels.txt'}")
    assert [entry.replace(" ", "") for entry in classes] == list(CLASSES)
    image.write_bytes(encoded(striped()))  # of the model's own size: the class map is not resized
    segment(image, tmp_path / "out", classes=classes)
    mask = Image.open(tmp_path / "out" / "street.png")
    np.testing.assert_array_equal(np.asarray(mask), np.array([0, 255, 0, 3])[striped()[..., 0]])
    assert json.loads(mask.info["classes"]) == {"0": "ground", "1": "", "2": "", "3": "car"}


def test_other_options_make_the_masks_again(image: Path, tmp_path: Path) -> None:
    segment(image, tmp_path / "out")
    assert "1 of 1 images are already done" in segment(image, tmp_path / "out")[1]
    output = segment(image, tmp_path / "out", classes=("car",))[1]
    assert "1 of 1 masks were made by another model, with other options" in output
    assert "1 of 1 images are already done" in segment(image, tmp_path / "out", classes=("car",))[1]
    assert "1 masks written" in segment(image, tmp_path / "out")[1]


def test_a_single_file(image: Path, tmp_path: Path) -> None:
    segment(image, tmp_path / "one.json", masks="polygons", overlay=True)
    assert json.loads((tmp_path / "one.json").read_bytes())["classes"][0]["polygons"]["type"] == "MultiPolygon"
    assert (tmp_path / "one.overlay.png").is_file()
    with pytest.raises(AlignSegError, match=r"--masks rle writes JSON files. Pass --out .*two\.json"):
        plan([image], tmp_path / "two.png", Options(masks="rle"))


def test_unknown_classes_end_the_run_before_any_image(image: Path, tmp_path: Path) -> None:
    with live() as url:
        result = CliRunner().invoke(
            cli.app, ["segment", str(image), "-o", str(tmp_path / "out"), "--server", url, "--classes", "bus=car"]
        )
    assert result.exit_code == cli.USAGE_ERROR
    assert "Unknown classes: bus. Model fake has, by id or name: 0 road" in " ".join(result.output.split())
    assert not os.path.lexists(tmp_path / "out")


def test_the_classes_of_a_table_have_their_new_names() -> None:
    table = ClassTable("fake", "1", tuple(ClassEntry(i, name, COLORS[name]) for i, name in enumerate(COLORS)))
    assert selected_classes(table, ()) == list(table.classes)
    ground, car = selected_classes(table, CLASSES)
    assert (ground, car) == (ClassEntry(0, "ground", COLORS["road"]), table.classes[3])
    with pytest.raises(BadRequest, match="Unknown classes: bus"):
        selected_classes(table, ["bus"])
    with pytest.raises(AlignSegError, match=r"@missing.*Expected a text file"):
        parse_classes("@missing")
