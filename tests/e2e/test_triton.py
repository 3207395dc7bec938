"""NVIDIA's own client, unchanged: health, metadata, inference with binary tensors, JSON and encoded pictures."""

from collections.abc import Generator

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from service.types import UInt8Array
from tests.support.fake_engine import FakeEngine, encoded, striped
from tests.support.live_server import live

PICTURES = np.stack([striped(64, 96), striped(64, 96)[:, ::-1]])


@pytest.fixture(scope="module")
def server() -> Generator[str, None, None]:
    with live(max_pixels=20_000, max_images=4) as url:
        yield url


@pytest.fixture
def client(server: str) -> Generator[triton.InferenceServerClient, None, None]:
    with triton.InferenceServerClient(server.removeprefix("http://")) as client:
        yield client


def tensor(pixels: UInt8Array, *, binary: bool = True) -> triton.InferInput:
    found = triton.InferInput("pictures", list(pixels.shape), "UINT8")
    found.set_data_from_numpy(np.ascontiguousarray(pixels), binary_data=binary)
    return found


def files(*contents: bytes) -> triton.InferInput:
    found = triton.InferInput("image", [len(contents)], "BYTES")
    found.set_data_from_numpy(np.array(contents, dtype=np.object_))
    return found


def check(maps: UInt8Array | None) -> None:
    """The classes' stripes from left to right, in the second picture from right to left."""
    assert maps is not None
    assert maps.shape == (2, 64, 96)
    assert maps.dtype == np.uint8
    assert maps[0, 30, [12, 36, 60, 84]].tolist() == [0, 1, 2, 3]
    assert maps[1, 30, [12, 36, 60, 84]].tolist() == [3, 2, 1, 0]


def test_health(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fake")
    assert client.is_model_ready("fake", "1")
    assert not client.is_model_ready("other")


def test_metadata(client: triton.InferenceServerClient) -> None:
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    told = client.get_model_metadata("fake", "1")
    assert (told["name"], told["versions"]) == ("fake", ["1"])
    assert told["inputs"][0] == {"name": "pictures", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}
    assert told["outputs"][0] == {"name": "class_map", "datatype": "UINT8", "shape": [-1, -1, -1]}


@pytest.mark.parametrize("binary", [True, False])
def test_pictures(client: triton.InferenceServerClient, binary: bool) -> None:
    outputs = [triton.InferRequestedOutput("class_map", binary_data=binary)]
    result = client.infer("fake", [tensor(PICTURES, binary=binary)], outputs=outputs, request_id="7")
    check(result.as_numpy("class_map"))
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("7", "fake", "1")


def test_without_outputs_all_that_is_the_default_comes_as_bytes(client: triton.InferenceServerClient) -> None:
    result = client.infer("fake", [tensor(PICTURES)], model_version="1")
    check(result.as_numpy("class_map"))
    assert result.as_numpy("confidence") is None


def test_confidence(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput(name) for name in ("confidence", "class_map")]
    result = client.infer("fake", [tensor(PICTURES)], outputs=outputs)
    check(result.as_numpy("class_map"))
    confidence = result.as_numpy("confidence")
    assert confidence is not None
    assert (confidence == 200).all()


def test_files(client: triton.InferenceServerClient) -> None:
    result = client.infer("fake", [files(*(encoded(picture) for picture in PICTURES))])
    check(result.as_numpy("class_map"))


def test_a_tensor_of_pictures_shares_a_batch() -> None:
    engine = FakeEngine(max_batch=4)
    with live(engine) as url, triton.InferenceServerClient(url.removeprefix("http://")) as client:
        client.infer("fake", [tensor(np.concatenate([PICTURES, PICTURES]))])
    assert max(shape[0] for shape in engine.batches) > 1


@pytest.mark.parametrize(
    ("model", "wanted", "status", "told"),
    [
        ("fake", lambda: tensor(np.zeros((1, 200, 200, 3), np.uint8)), "413", "at most 20000"),
        ("fake", lambda: tensor(np.zeros((5, 2, 2, 3), np.uint8)), "400", "at most 4"),
        ("fake", lambda: files(b"hello"), "415", "expected a JPEG"),
        ("fake", lambda: files(*[encoded(striped(100, 100))] * 3), "413", "3 maps of 10000 pixels"),
        ("fake", lambda: files(encoded(striped(16, 24)), encoded(striped(24, 16))), "400", "one size"),
        ("other", lambda: tensor(PICTURES), "404", "fake 1 is served"),
    ],
)  # fmt: skip
def test_errors_come_as_the_client_reads_them(
    client: triton.InferenceServerClient, model: str, wanted: object, status: str, told: str
) -> None:
    with pytest.raises(InferenceServerException, match=told) as caught:
        client.infer(model, [wanted()])  # type: ignore[operator]
    assert caught.value.status() == status


def test_a_timeout_that_has_passed(server: str) -> None:
    request = {
        "parameters": {"timeout": 1},
        "inputs": [{"name": "pictures", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}],
    }
    response = httpx.post(f"{server}/v2/models/fake/infer", json=request)
    assert response.status_code == 504
    assert list(response.json()) == ["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Inference-Header-Content-Length": "x"}, 400), ({"Content-Encoding": "gzip"}, 415),
     ({"Content-Type": "text/plain"}, 415), ({"X-Request-Timeout-Ms": "soon"}, 400)],
)  # fmt: skip
def test_heads_that_are_refused(server: str, headers: dict[str, str], status: int) -> None:
    response = httpx.post(f"{server}/v2/models/fake/infer", content=b"{}", headers=headers)
    assert response.status_code == status
    assert list(response.json()) == ["error"]


def test_with_a_key() -> None:
    with live(api_keys="secret") as url, triton.InferenceServerClient(url.removeprefix("http://")) as client:
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException, match="API key"):
            client.infer("fake", [tensor(PICTURES)])
        result = client.infer("fake", [tensor(PICTURES)], headers={"Authorization": "Bearer secret"})
        check(result.as_numpy("class_map"))
