"""Every response format of the real server: a separate process, a real ONNX model, real HTTP."""

import base64
import email
import email.policy
import io
import zipfile
from collections.abc import Generator
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from service.http.openapi.segment import MultiImageResponse, SegmentResponse
from service.rendering import media_types
from service.rendering.options import INCLUDE, MASKS
from tests.e2e.test_server import three_colors
from tests.support import tiny_model
from tests.support.fake_engine import encoded, opened
from tests.support.live_server import live
from tests.support.server_process import Process, running, serve

# pycocotools was built before numpy 2 asked for the copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
PIXELS = three_colors(96, 128)
IDS = PIXELS.argmax(axis=2)
IMAGE = encoded(PIXELS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Process, None, None]:
    folder: Path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model.write(folder)
    with running(serve(folder), intra_op_threads=1) as process:
        yield process
        assert process.stop() == 0, "".join(process.log)


def ask(server: Process, accept: str = media_types.JSON, **query: str) -> httpx.Response:
    url = f"{server.url}/segment"
    response = httpx.post(url, files={"image": IMAGE}, params=query, headers={"Accept": accept})
    assert response.status_code == 200, response.text
    return response


def test_images_and_arrays(server: Process) -> None:
    for accept, kind in ((media_types.PNG, "PNG"), (media_types.JPEG, "JPEG"), (media_types.WEBP, "WEBP")):
        image = opened(ask(server, accept).content)
        assert (image.format, image.size) == (kind, (128, 96))
    np.testing.assert_array_equal(np.load(io.BytesIO(ask(server, media_types.NPY).content)), IDS)


def test_rle_and_polygons_cover_the_classes(server: Process) -> None:
    for c in ask(server, masks="rle").json()["classes"]:
        np.testing.assert_array_equal(coco.decode(c["rle"]), c["id"] == IDS)
    for c in ask(server, masks="polygons").json()["classes"]:
        (((*ring,),),) = c["polygons"]["coordinates"]
        twice = sum(x * y1 - x1 * y for (x, y), (x1, y1) in pairwise(ring))
        assert twice == 2 * (c["id"] == IDS).sum()


def test_confidence_is_the_softmax_probability(server: Process) -> None:
    """High for pure colours, lower for two colours that are close."""
    pixels = PIXELS.copy()
    pixels[:, :64] = 101, 100, 0
    body = httpx.post(f"{server.url}/segment?confidence=true", content=encoded(pixels)).json()
    confidence = np.asarray(opened(base64.b64decode(body["confidence"])))
    assert confidence.shape == IDS.shape
    assert (confidence[:, :60] == round(255 / (1 + np.exp(-1)))).all()
    assert (confidence[:, 68:] == 255).all()
    named = {c["name"]: c["confidence"] for c in body["classes"]}
    assert named["red"] == pytest.approx(0.73, abs=0.01)
    assert named["green"] > 0.99


def test_zip_and_multipart_have_the_files(server: Process) -> None:
    with zipfile.ZipFile(io.BytesIO(ask(server, media_types.ZIP).content)) as archive:
        assert set(archive.namelist()) >= {"answer.json", "mask.png", "overlay.jpg", "classes/002-blue.png"}
        np.testing.assert_array_equal(np.asarray(opened(archive.read("mask.png"))), IDS)
    response = ask(server, media_types.MULTIPART)
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + response.content, policy=email.policy.HTTP)
    assert [part.get_filename() for part in message.iter_parts()][:2] == ["answer.json", "mask.png"]  # type: ignore[attr-defined]


def test_tiles_keep_fine_detail(server: Process) -> None:
    pixels = np.zeros((150, 200, 3), dtype=np.uint8)
    pixels[::2, ::2, 1] = pixels[1::2, :, 2] = 255
    response = httpx.post(
        f"{server.url}/segment?tile=true", content=encoded(pixels), headers={"Accept": media_types.PNG}
    )
    np.testing.assert_array_equal(np.asarray(opened(response.content)), pixels.argmax(axis=2))


def test_several_images_fail_separately(server: Process) -> None:
    files = [("image", IMAGE), ("image", b"no image"), ("image", encoded(PIXELS[:, :64]))]
    body = httpx.post(f"{server.url}/segment", files=files).json()
    results = MultiImageResponse.model_validate(body).results
    assert [isinstance(result, SegmentResponse) for result in results] == [True, False, True]
    assert body["results"][1]["problem"]["status"] == 415


@pytest.fixture(scope="module")
def fake() -> Generator[httpx.Client, None, None]:
    with live(max_tiles=20) as url, httpx.Client(base_url=url) as client:
        yield client


def texts(*valid: str) -> st.SearchStrategy[list[str]]:
    """Mostly valid values, some invalid ones."""
    return st.lists(st.sampled_from([*valid, *valid, "", "none", "1e9", "-1", "é,\x00"]), max_size=2)


QUERY = st.fixed_dictionaries(
    {},
    optional={
        "masks": texts(*MASKS),
        "classes": texts("road", "car,sky", "3", "0,1,2"),
        "alpha": texts("0", "0.5", "1"),
        "confidence": texts("true", "false"),
        "tile": texts("true", "false"),
        "include": texts(*INCLUDE, ",".join(INCLUDE)),
        "unknown": texts("x"),
    },
)
SIZE = st.tuples(st.integers(1, 70), st.integers(1, 70)) | st.sampled_from([(1, 20_000), (20_000, 1), (1, 66_000)])


@given(QUERY, st.sampled_from([*media_types.ALL, "*/*", "image/*;q=0.5"]), SIZE, st.integers(1, 2))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_combination_of_parameters_is_a_server_error(
    fake: httpx.Client, query: dict[str, list[str]], accept: str, size: tuple[int, int], times: int
) -> None:
    pixels = np.arange(size[0] * size[1], dtype=np.uint32).astype(np.uint8).reshape(size)
    files = [("image", encoded(np.repeat(pixels[..., None], 3, axis=2)))] * times
    response = fake.post("/segment", files=files, params=query, headers={"Accept": accept})
    assert response.status_code in {200, 400, 406, 413}, response.text
    if response.status_code != 200:
        assert len(response.json()["detail"]) > 20
