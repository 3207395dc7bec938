"""The gRPC port with NVIDIA's own clients, sync and aio, unmodified; limits, keys, deadlines, cancellation, drain."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.http as triton_http
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from service.grpc_api import generate, messages
from service.types import UInt8Array
from tests.support.fake_engine import FakeEngine, Gate, encoded, striped
from tests.support.live_server import live
from tests.support.server_process import running, stand_in

IMAGES = np.stack([striped(64, 96), striped(64, 96)[:, ::-1]])
INFER = "/inference.GRPCInferenceService/ModelInfer"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(engine: FakeEngine | None = None, **settings: Any) -> Generator[tuple[str, str], None, None]:
    """The address of the gRPC port, and the URL of HTTP."""
    port = free_port()
    with live(engine, grpc_port=port, **settings) as url:
        yield f"127.0.0.1:{port}", url


@pytest.fixture(scope="module")
def server() -> Generator[tuple[str, str], None, None]:
    with serving(max_pixels=20_000, max_images=4, max_body_bytes=200_000) as addresses:
        yield addresses


@pytest.fixture
def client(server: tuple[str, str]) -> Generator[triton.InferenceServerClient, None, None]:
    with triton.InferenceServerClient(server[0]) as client:
        yield client


def tensor(pixels: UInt8Array, module: Any = triton) -> Any:
    infer_input = module.InferInput("pictures", list(pixels.shape), "UINT8")
    infer_input.set_data_from_numpy(np.ascontiguousarray(pixels))
    return infer_input


def files(*contents: bytes) -> Any:
    infer_input = triton.InferInput("image", [len(contents)], "BYTES")
    infer_input.set_data_from_numpy(np.array(contents, dtype=np.object_))
    return infer_input


def check(maps: UInt8Array | None) -> None:
    assert maps is not None
    assert maps.shape == (2, 64, 96)
    assert maps[0, 30, [12, 36, 60, 84]].tolist() == [0, 1, 2, 3]
    assert maps[1, 30, [12, 36, 60, 84]].tolist() == [3, 2, 1, 0]


def in_flight(url: str) -> int:
    line = next(
        line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith("alignseg_in_flight ")
    )
    return int(float(line.split()[1]))


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold within 60 s"
        time.sleep(0.01)


def test_health_and_descriptions_are_those_of_http(client: triton.InferenceServerClient, server: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fake")
    assert client.is_model_ready("fake", "1")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata().name == "alignseg-serve"
    with triton_http.InferenceServerClient(server[1].removeprefix("http://")) as http:
        metadata = client.get_model_metadata("fake", as_json=True)
        expected = http.get_model_metadata("fake")
        for entry in (*expected["inputs"], *expected["outputs"]):
            entry["shape"] = [str(value) for value in entry["shape"]]  # int64 is text in protobuf's JSON
        assert metadata == expected
        config = client.get_model_config("fake").config
        assert (config.name, config.max_batch_size) == ("fake", http.get_model_config("fake")["max_batch_size"])
        assert [list(one.dims) for one in config.input] == [[-1, -1, -1, 3], [-1]]
        assert [one.data_type for one in config.input] == [model_config_pb2.TYPE_UINT8, model_config_pb2.TYPE_STRING]
        index = http.get_model_repository_index()
        assert client.get_model_repository_index(as_json=True)["models"] == [
            {name: value for name, value in index[0].items() if value}
        ]


@pytest.mark.parametrize("over", ["grpc", "http"])
def test_statistics_count_images(server: tuple[str, str], over: str) -> None:
    def statistics() -> dict[str, Any]:
        if over == "http":
            with triton_http.InferenceServerClient(server[1].removeprefix("http://")) as http:
                stats: dict[str, Any] = http.get_inference_statistics("fake")["model_stats"][0]
                assert http.get_inference_statistics()["model_stats"][0]["name"] == "fake"
                return stats
        return client.get_inference_statistics("fake", as_json=True)["model_stats"][0]

    with triton.InferenceServerClient(server[0]) as client:
        client.infer("fake", [tensor(IMAGES)])
        before = statistics()
        client.infer("fake", [tensor(IMAGES)])
        after = statistics()
    assert int(after["inference_count"]) - int(before["inference_count"]) == 2
    for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        first, second = before["inference_stats"][name], after["inference_stats"][name]
        assert int(second["count"]) - int(first["count"]) == 2, name
        assert int(second["ns"]) > int(first["ns"]), name


def test_class_maps_and_confidence(client: triton.InferenceServerClient) -> None:
    result = client.infer("fake", [tensor(IMAGES)], request_id="7", model_version="1")
    check(result.as_numpy("class_map"))
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("7", "fake", "1")
    outputs = [triton.InferRequestedOutput(name) for name in ("confidence", "class_map")]
    both = client.infer("fake", [files(*map(encoded, IMAGES))], outputs=outputs)
    check(both.as_numpy("class_map"))
    assert (both.as_numpy("confidence") == 200).all()


def test_contents_inside_the_message_are_read(server: tuple[str, str]) -> None:
    call = grpc.insecure_channel(server[0]).unary_unary(INFER)
    for contents, datatype, name, shape in (
        ({"uint_contents": striped(4, 8).ravel().tolist()}, "UINT8", "pictures", [1, 4, 8, 3]),
        ({"bytes_contents": [encoded(striped(4, 8))]}, "BYTES", "image", [1]),
    ):
        entry = {"name": name, "datatype": datatype, "shape": shape, "contents": contents}
        request = service_pb2.ModelInferRequest(model_name="fake", inputs=[entry])
        response = service_pb2.ModelInferResponse.FromString(call(request.SerializeToString()))
        assert list(response.outputs[0].shape) == [1, 4, 8]
        assert len(response.raw_output_contents[0]) == 32


async def test_the_aio_client_works(server: tuple[str, str]) -> None:
    async with triton_aio.InferenceServerClient(server[0]) as client:
        assert await client.is_server_ready()
        results = await asyncio.gather(*(client.infer("fake", [tensor(IMAGES, triton_aio)]) for _ in range(8)))
        for result in results:
            check(result.as_numpy("class_map"))
        with pytest.raises(InferenceServerException, match="this server has fake"):
            await client.infer("other", [tensor(IMAGES, triton_aio)])


def test_the_callback_client_works(client: triton.InferenceServerClient) -> None:
    done, outcome = threading.Event(), []

    def callback(result: Any, error: Any) -> None:
        outcome.append((result, error))
        done.set()

    client.async_infer("fake", [tensor(IMAGES)], callback)
    assert done.wait(60)
    ((result, error),) = outcome
    assert error is None
    check(result.as_numpy("class_map"))


@pytest.mark.parametrize(
    ("model", "infer_input", "status", "message"),
    [
        ("fake", lambda: tensor(np.zeros((1, 200, 200, 3), np.uint8)), "INVALID_ARGUMENT", "limit 20000"),
        ("fake", lambda: tensor(np.zeros((5, 2, 2, 3), np.uint8)), "INVALID_ARGUMENT", "limit 4"),
        ("fake", lambda: files(b"hello"), "INVALID_ARGUMENT", "expected JPEG"),
        ("fake", lambda: files(encoded(striped(16, 24)), encoded(striped(24, 16))), "INVALID_ARGUMENT", "different"),
        ("other", lambda: tensor(IMAGES), "NOT_FOUND", "this server has fake, version 1"),
        ("fake", lambda: files(b"\1" * 300_000), "RESOURCE_EXHAUSTED", "arger than max"),
    ],
)  # fmt: skip
def test_errors_have_a_status_and_a_message(
    client: triton.InferenceServerClient, model: str, infer_input: Any, status: str, message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message) as raised:
        client.infer(model, [infer_input()])
    assert raised.value.status() == f"StatusCode.{status}"
    assert client.is_server_ready()


def test_what_is_not_supported_says_so(client: triton.InferenceServerClient, server: tuple[str, str]) -> None:
    for call in (lambda: client.load_model("fake"), lambda: client.unload_model("fake")):
        with pytest.raises(InferenceServerException, match="loads a changed model folder by itself"):
            call()
    with pytest.raises(InferenceServerException) as raised:  # gRPC does not limit what a message decompresses to
        client.infer("fake", [tensor(IMAGES)], compression_algorithm="gzip")
    assert raised.value.status() == "StatusCode.UNIMPLEMENTED"
    for path in ("load", "unload"):
        response = httpx.post(f"{server[1]}/v2/repository/models/fake/{path}", json={})
        assert response.status_code == 400


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"", b"\x0a\x02\xff\xfe"])
def test_damaged_messages_are_invalid_arguments(server: tuple[str, str], body: bytes) -> None:
    with grpc.insecure_channel(server[0]) as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(INFER)(body)
    assert raised.value.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


def test_an_api_key_is_required_but_for_probes() -> None:
    with serving(api_keys="secret") as (address, _), triton.InferenceServerClient(address) as client:
        assert client.is_server_ready()
        assert client.is_model_ready("fake")
        for call in (lambda: client.infer("fake", [tensor(IMAGES)]), client.get_server_metadata):
            with pytest.raises(InferenceServerException, match="API key") as raised:
                call()
            assert raised.value.status() == "StatusCode.UNAUTHENTICATED"
        for headers in ({"authorization": "Bearer secret"}, {"x-api-key": "secret"}):
            check(client.infer("fake", [tensor(IMAGES)], headers=headers).as_numpy("class_map"))


def test_overload_is_rejected_before_the_message_is_read_and_says_when_to_retry() -> None:
    gate = Gate()
    engine = FakeEngine()
    with serving(engine, max_in_flight=1) as (address, url), triton.InferenceServerClient(address) as client:
        engine.before = gate
        client.async_infer("fake", [tensor(IMAGES[:1])], lambda result, error: None)
        assert gate.entered.wait(60)
        try:
            with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as raised:
                channel.stream_unary(INFER)(iter(()), timeout=30)  # no message at all
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "1 requests in flight, limit 1" in raised.value.details()
            trailing = dict(raised.value.trailing_metadata())
            assert int(trailing["grpc-retry-pushback-ms"]) > 0
            assert trailing["problem-type"] == "urn:alignseg:problem:overloaded"
            assert trailing["x-request-id"]
        finally:
            gate.opened.set()
        wait_for(lambda: in_flight(url) == 0)
        metrics = httpx.get(f"{url}/metrics").text
    assert f'alignseg_requests_total{{route="{INFER}",status="429"}} 1.0' in metrics
    assert f'alignseg_requests_total{{route="{INFER}",status="200"}} 1.0' in metrics
    assert 'alignseg_requests_rejected_total{reason="overloaded-count"} 1.0' in metrics


def test_storms_of_cancelled_and_late_calls_leave_nothing_behind() -> None:
    opened, engine = threading.Event(), FakeEngine()
    with serving(engine) as (address, url), triton.InferenceServerClient(address) as client:
        engine.before = lambda batch: opened.wait(120)
        for _ in range(3):
            calls = [client.async_infer("fake", [tensor(IMAGES)], lambda result, error: None) for _ in range(10)]
            late = [
                client.async_infer("fake", [tensor(IMAGES)], lambda result, error: None, client_timeout=0.3)
                for _ in range(10)
            ]
            assert len(late) == 10
            wait_for(lambda: in_flight(url) > 0)
            for call in calls:
                call.cancel()
        wait_for(lambda: in_flight(url) <= engine.max_batch)  # those of the batch that the engine computes
        opened.set()
        wait_for(lambda: in_flight(url) == 0)
        batches = len(engine.batches)
        check(client.infer("fake", [tensor(IMAGES)]).as_numpy("class_map"))
        metrics = httpx.get(f"{url}/metrics").text
    assert batches <= 4  # two to warm up, the one in the engine, one prepared ahead; of 120 images
    assert "alignseg_decoded_pixels 0.0" in metrics
    assert f'route="{INFER}",status="499"' in metrics


def test_a_deadline_is_the_calls_own() -> None:
    gate, engine = Gate(), FakeEngine()
    with serving(engine) as (address, url), triton.InferenceServerClient(address) as client:
        engine.before = gate
        with pytest.raises(InferenceServerException) as raised:
            client.infer("fake", [tensor(IMAGES)], client_timeout=0.2)
        assert raised.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        gate.opened.set()
        wait_for(lambda: in_flight(url) == 0)


def test_an_upload_that_sends_nothing_ends_at_the_deadline() -> None:
    def nothing() -> Generator[bytes, None, None]:
        released.wait(60)
        yield from ()

    released = threading.Event()
    with serving(request_timeout_ms=200) as (address, url), grpc.insecure_channel(address) as channel:
        with pytest.raises(grpc.RpcError) as raised:
            channel.stream_unary(INFER)(nothing(), timeout=60)
        released.set()
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_for(lambda: in_flight(url) == 0)


def test_a_drain_answers_accepted_calls_and_rejects_new_ones() -> None:
    port = free_port()
    with running(stand_in(1500, warm_ms=1), grpc_port=port) as process:
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            outcome: list[Any] = []
            client.async_infer("fake", [tensor(IMAGES[:1])], lambda result, error: outcome.append((result, error)))
            process.wait_until_in_flight(1)
            process.process.send_signal(signal.SIGTERM)
            wait_for(lambda: not client.is_server_ready())
            with pytest.raises(InferenceServerException) as raised:
                client.infer("fake", [tensor(IMAGES[:1])])
            assert raised.value.status() == "StatusCode.UNAVAILABLE"
            wait_for(lambda: outcome)
        assert outcome[0][1] is None
        assert process.wait() == 0


def test_a_port_in_use_is_an_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        command = [sys.executable, "-m", "benchmarks.server.fake_engine_server", "--infer-ms", "1"]
        environment = {"ALIGNSEG_GRPC_PORT": str(other.getsockname()[1]), "ALIGNSEG_PORT": "0"}
        done = subprocess.run(  # noqa: S603
            command,
            env={**__import__("os").environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
    assert done.returncode == 3
    assert "for gRPC" in done.stderr


def test_without_the_extra_the_error_names_it() -> None:
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'grpc' else find(name, *rest)\n"
        "from service.app import create_app; from service.settings import Settings; create_app(Settings(grpc_port=0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert "install alignseg-serve[grpc]" in done.stderr.lower()


def test_messages_have_tritons_field_numbers_and_types() -> None:
    for name in ("ModelInferRequest", "ModelInferResponse", "ModelConfigResponse", "ModelStatisticsResponse",
                 "RepositoryIndexResponse", "ServerMetadataResponse", "ModelMetadataResponse"):  # fmt: skip
        compare(messages.message(name).DESCRIPTOR, service_pb2.DESCRIPTOR.message_types_by_name[name])


def compare(ours: Descriptor, theirs: Descriptor) -> None:
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        ours_is, theirs_is = ((one.number, one.type, one.is_repeated) for one in (field, other))
        assert ours_is == theirs_is, field.full_name
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            compare(field.message_type, other.message_type)


def test_the_compiled_messages_are_those_of_the_proto_file() -> None:
    pytest.importorskip("grpc_tools", reason="needs grpcio-tools")
    assert generate.descriptor_set() == messages._FILES.SerializeToString()
