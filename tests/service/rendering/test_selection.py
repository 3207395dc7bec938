"""`?classes=` and `--classes`: keep, rename, merge and leave out."""

import numpy as np
import pytest

from service.errors import BadRequest
from service.rendering.class_stats import summarize
from service.rendering.selection import UNSELECTED, Selection, select
from tests.support.fake_engine import COLORS, manifest

MODEL = manifest()  # 0 road, 1 sky, 2 tree, 3 car
IDS = np.array([[0, 1, 2, 3], [0, 0, 2, 3]], dtype=np.uint8)


def selection(*requested: str) -> Selection:
    return select(requested, MODEL, MODEL.name)


@pytest.mark.parametrize(
    ("requested", "names"),
    [
        (["car", "ROAD", "1", "car"], {0: "road", 1: "sky", 3: "car"}),
        (["road=drivable"], {0: "drivable"}),
        (["road=drivable", "tree=drivable", "car"], {0: "drivable", 3: "car"}),
        (["3=thing", " Tree = thing "], {2: "thing"}),
        (["*"], dict(enumerate(COLORS))),
        (["sky=", "*"], {0: "road", 2: "tree", 3: "car"}),
        (["*", "car=road"], {0: "road", 1: "sky", 2: "tree"}),
        (["road=car"], {0: "car"}),
        (["car", "car=car"], {3: "car"}),
    ],
)
def test_names_by_id(requested: list[str], names: dict[int, str]) -> None:
    chosen = selection(*requested)
    assert {i: chosen.names[i] for i in chosen.ids} == names
    assert [name for name in chosen.names if name] == list(names.values())


def test_a_merged_class_has_the_lowest_id_its_colour_and_the_statistics_of_all_its_pixels() -> None:
    chosen = selection("car=thing", "tree=thing", "sky")
    ids = chosen.apply(IDS)
    np.testing.assert_array_equal(ids, [[UNSELECTED, 1, 2, 2], [UNSELECTED, UNSELECTED, 2, 2]])
    confidence = np.array([[9, 51, 10, 20], [9, 9, 30, 40]], dtype=np.uint8)
    sky, thing = summarize(ids, chosen, confidence, with_unselected=True)
    assert (sky.name, sky.pixels, sky.box, sky.confidence) == ("sky", 1, (1, 0, 1, 1), 0.2)
    assert (thing.id, thing.name, thing.color, thing.pixels, thing.box) == (2, "thing", COLORS["tree"], 4, (2, 0, 2, 2))
    assert thing.confidence == pytest.approx(25 / 255, abs=1e-4)


def test_an_image_without_the_classes_has_no_statistics() -> None:
    chosen = selection("car")
    assert summarize(chosen.apply(np.zeros((2, 2), dtype=np.uint8)), chosen, with_unselected=True) == []


def test_invalid_requests_say_what_the_model_has() -> None:
    with pytest.raises(BadRequest) as raised:
        selection("car", "bus=vehicle", "4")
    assert str(raised.value) == "Unknown classes: bus, 4. Model fake has, by id or name: 0 road, 1 sky, 2 tree, 3 car."
    with pytest.raises(BadRequest, match=r"Class road has two names in classes: 'a' and 'b'"):
        selection("road=a", "0=b")
    with pytest.raises(BadRequest, match=r"classes=sky= leaves no class. Add \* to keep all others"):
        selection("sky=")
    with pytest.raises(BadRequest, match=r"Expected at most 100 printable"):
        selection("sky=" + "x" * 101)
