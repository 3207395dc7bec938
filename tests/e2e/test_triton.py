"""The server with NVIDIA's own client, unmodified: health, metadata, binary tensors, JSON and encoded images."""

from collections.abc import Generator

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from service.types import UInt8Array
from tests.support.fake_engine import FakeEngine, encoded, striped
from tests.support.live_server import live

IMAGES = np.stack([striped(64, 96), striped(64, 96)[:, ::-1]])


@pytest.fixture(scope="module")
def server() -> Generator[str, None, None]:
    with live(max_pixels=20_000, max_images=4) as url:
        yield url


@pytest.fixture
def client(server: str) -> Generator[triton.InferenceServerClient, None, None]:
    with triton.InferenceServerClient(server.removeprefix("http://")) as client:
        yield client


def tensor(pixels: UInt8Array, *, binary: bool = True) -> triton.InferInput:
    infer_input = triton.InferInput("pictures", list(pixels.shape), "UINT8")
    infer_input.set_data_from_numpy(np.ascontiguousarray(pixels), binary_data=binary)
    return infer_input


def files(*contents: bytes) -> triton.InferInput:
    infer_input = triton.InferInput("image", [len(contents)], "BYTES")
    infer_input.set_data_from_numpy(np.array(contents, dtype=np.object_))
    return infer_input


def check(maps: UInt8Array | None) -> None:
    """The stripes of the classes run from left to right in the first image, from right to left in the second."""
    assert maps is not None
    assert maps.shape == (2, 64, 96)
    assert maps.dtype == np.uint8
    assert maps[0, 30, [12, 36, 60, 84]].tolist() == [0, 1, 2, 3]
    assert maps[1, 30, [12, 36, 60, 84]].tolist() == [3, 2, 1, 0]


def test_live_and_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fake")
    assert client.is_model_ready("fake", "1")
    assert not client.is_model_ready("other")


def test_metadata_describes_inputs_and_outputs(client: triton.InferenceServerClient) -> None:
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("fake", "1")
    assert (metadata["name"], metadata["versions"]) == ("fake", ["1"])
    assert metadata["inputs"][0] == {"name": "pictures", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}
    assert metadata["outputs"][0] == {"name": "class_map", "datatype": "UINT8", "shape": [-1, -1, -1]}


@pytest.mark.parametrize("binary", [True, False])
def test_class_maps_as_binary_data_and_json(client: triton.InferenceServerClient, binary: bool) -> None:
    outputs = [triton.InferRequestedOutput("class_map", binary_data=binary)]
    result = client.infer("fake", [tensor(IMAGES, binary=binary)], outputs=outputs, request_id="7")
    check(result.as_numpy("class_map"))
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("7", "fake", "1")


def test_without_outputs_the_class_map_is_returned(client: triton.InferenceServerClient) -> None:
    result = client.infer("fake", [tensor(IMAGES)], model_version="1")
    check(result.as_numpy("class_map"))
    assert result.as_numpy("confidence") is None


def test_confidence_is_returned_on_request(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput(name) for name in ("confidence", "class_map")]
    result = client.infer("fake", [tensor(IMAGES)], outputs=outputs)
    check(result.as_numpy("class_map"))
    confidence = result.as_numpy("confidence")
    assert confidence is not None
    assert (confidence == 200).all()


def test_encoded_files_are_decoded(client: triton.InferenceServerClient) -> None:
    result = client.infer("fake", [files(*(encoded(image) for image in IMAGES))])
    check(result.as_numpy("class_map"))


def test_the_images_of_a_tensor_share_a_batch() -> None:
    engine = FakeEngine(max_batch=4)
    with live(engine) as url, triton.InferenceServerClient(url.removeprefix("http://")) as client:
        client.infer("fake", [tensor(np.concatenate([IMAGES, IMAGES]))])
    assert max(shape[0] for shape in engine.batches) > 1


@pytest.mark.parametrize(
    ("model", "infer_input", "status", "message"),
    [
        ("fake", lambda: tensor(np.zeros((1, 200, 200, 3), np.uint8)), "413", "limit 20000"),
        ("fake", lambda: tensor(np.zeros((5, 2, 2, 3), np.uint8)), "400", "limit 4"),
        ("fake", lambda: files(b"hello"), "415", "expected JPEG"),
        ("fake", lambda: files(*[encoded(striped(100, 100))] * 3), "413", "3 maps of 10000 pixels"),
        ("fake", lambda: files(encoded(striped(16, 24)), encoded(striped(24, 16))), "400", "different sizes"),
        ("other", lambda: tensor(IMAGES), "404", "this server has fake, version 1"),
    ],
)  # fmt: skip
def test_errors_are_readable_by_the_client(
    client: triton.InferenceServerClient, model: str, infer_input: object, status: str, message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message) as raised:
        client.infer(model, [infer_input()])  # type: ignore[operator]
    assert raised.value.status() == status


def test_a_missed_timeout_is_a_504(server: str) -> None:
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
def test_invalid_headers_are_rejected(server: str, headers: dict[str, str], status: int) -> None:
    response = httpx.post(f"{server}/v2/models/fake/infer", content=b"{}", headers=headers)
    assert response.status_code == status
    assert list(response.json()) == ["error"]


def test_an_api_key_is_required_and_accepted() -> None:
    with live(api_keys="secret") as url, triton.InferenceServerClient(url.removeprefix("http://")) as client:
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException, match="API key"):
            client.infer("fake", [tensor(IMAGES)])
        result = client.infer("fake", [tensor(IMAGES)], headers={"Authorization": "Bearer secret"})
        check(result.as_numpy("class_map"))
