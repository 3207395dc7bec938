import base64
import contextlib
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import BadRequest, ImageTooLarge, PayloadTooLarge, RequestError
from service.http import kserve_codec
from service.http.kserve_codec import InferRequest, Limits

LIMITS = Limits(images=3, pixels=100)


def message(*inputs: dict[str, Any], tail: bytes = b"", **more: Any) -> tuple[bytes, int | None]:
    text = orjson.dumps({"inputs": inputs, **more})
    return text + tail, len(text) if tail else None


def pictures(shape: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": "pictures", "datatype": "UINT8", "shape": shape, **more}


def image(shape: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": shape, **more}


def parse(*inputs: dict[str, Any], tail: bytes = b"", **more: Any) -> InferRequest:
    return kserve_codec.parse(*message(*inputs, tail=tail, **more), LIMITS)


ARRAY = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)


@pytest.mark.parametrize("data", [ARRAY.ravel().tolist(), ARRAY.tolist(), ARRAY.reshape(2, -1).tolist()])
def test_numbers_may_be_flat_or_nested(data: list[Any]) -> None:
    request = parse(pictures([2, 2, 3, 3], data=data), id="7")
    np.testing.assert_array_equal(np.stack(request.images), ARRAY)  # type: ignore[arg-type]
    assert (request.id, request.outputs, request.timeout_s) == ("7", {"class_map": False}, None)


def test_binary_data_follows_the_json() -> None:
    tail = ARRAY.tobytes()
    request = parse(
        pictures([2, 2, 3, 3], parameters={"binary_data_size": len(tail)}),
        tail=tail,
        parameters={"binary_data_output": True, "timeout": 1500},
        outputs=[{"name": "class_map"}, {"name": "confidence", "parameters": {"binary_data": False}}],
    )
    np.testing.assert_array_equal(np.stack(request.images), ARRAY)  # type: ignore[arg-type]
    assert request.outputs == {"class_map": True, "confidence": False}
    assert request.timeout_s == 0.0015


def test_image_files_as_bytes_or_base64() -> None:
    tail = b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c"
    assert parse(image([3], parameters={"binary_data_size": len(tail)}), tail=tail).images == [b"ab", b"", b"c"]
    text = base64.b64encode(b"ab").decode()
    assert parse(image([2, 1], data=[text, text])).images == [b"ab", b"ab"]


INVALID: dict[str, tuple[tuple[bytes, int | None], str]] = {
    "invalid JSON": ((b"{", None), "Invalid JSON"),
    "not an object": ((b"[]", None), "Not a request of the Open Inference Protocol"),
    "no inputs": (message(), "Expected one input: 'pictures'"),
    "inputs of a wrong kind": ((b'{"inputs": 3}', None), "inputs: Input should be a valid list"),
    "two inputs": (message(pictures([1, 1, 1, 3], data=[1, 2, 3]), image([1], data=[""])), "Expected one input"),
    "another input": (message({"name": "x", "datatype": "UINT8", "shape": [1], "data": [1]}), "Expected one input"),
    "another type": (message({**pictures([1, 1, 1, 3], data=[1, 2, 3]), "datatype": "FP32"}), r"UINT8 \[N, H, W, 3\]"),
    "channels first": (message(pictures([1, 3, 2, 2], data=[0] * 12)), r"UINT8 \[N, H, W, 3\]"),
    "a scalar": (message(image([], data=[""])), "Expected BYTES"),
    "an empty side": (message(pictures([1, 0, 2, 3], data=[])), "shape.1"),
    "a negative side": (message(pictures([1, -1, 2, 3], data=[])), "shape.1"),
    "half a pixel": (message(pictures([1, 1.5, 2, 3], data=[])), "shape.1"),
    "too few values": (message(pictures([1, 1, 2, 3], data=[1, 2])), "2 values. Its shape .* requires 6"),
    "too many values": (message(pictures([1, 1, 1, 3], data=[1] * 4)), "4 values"),
    "too large a value": (message(pictures([1, 1, 1, 3], data=[1, 2, 256])), "Expected whole numbers from 0 to 255"),
    "a fraction": (message(pictures([1, 1, 1, 3], data=[1, 2, 0.5])), "Expected whole numbers"),
    "words": (message(pictures([1, 1, 1, 3], data=["a", "b", "c"])), "Expected whole numbers"),
    "lists among numbers": (message(pictures([1, 1, 1, 3], data=[1, [2], 3])), "Expected whole numbers"),
    "numbers among lists": (message(pictures([1, 1, 1, 3], data=[[1], 2, 3])), "Expected whole numbers"),
    "objects": (message(pictures([1, 1, 1, 3], data=[{}, {}, {}])), "Expected whole numbers"),
    "very nested": (message(pictures([1, 1, 1, 3], data=[[[[[[1, 2, 3]]]]]])), "Expected whole numbers"),
    "no data": (message(pictures([1, 1, 1, 3])), "no data and no binary_data_size"),
    "shared memory": (message(pictures([1, 1, 1, 3], parameters={"shared_memory_region": "x"})), "Shared memory"),
    "bytes left over": (message(pictures([1, 1, 1, 3], data=[1, 2, 3]), tail=b"x"), "1 bytes follow the JSON"),
    "missing bytes": (message(pictures([1, 1, 1, 3], parameters={"binary_data_size": 3})), "0 bytes follow"),
    "a wrong size": (message(pictures([1, 1, 1, 3], parameters={"binary_data_size": "3"})), "Expected a number"),
    "a negative size": (message(pictures([1, 1, 1, 3], parameters={"binary_data_size": -3})), "Expected a number"),
    "JSON past the end": ((b"{}", 9), "is 9, but the body has 2"),
    "too many images": (message(pictures([4, 1, 1, 3], data=[0] * 12)), "limit 3"),
    "too many files": (message(image([4], data=[""] * 4)), "limit 3"),
    "another number of files": (message(image([2], data=[""])), "1 elements. Its shape"),
    "invalid base64": (message(image([1], data=["#"])), "Invalid base64"),
    "numbers for base64": (message(image([1], data=[3])), "Invalid base64"),
    "a cut element": (message(image([1], parameters={"binary_data_size": 5}), tail=b"\x09\0\0\0a"), "it has 5 of 13"),
    "a cut length": (message(image([1], parameters={"binary_data_size": 2}), tail=b"\x09\0"), "it has 2 of"),
    "more elements": (message(image([1], parameters={"binary_data_size": 12}), tail=bytes(12)), "2 elements"),
    "another output": (message(pictures([1, 1, 1, 3], data=[1, 2, 3]), outputs=[{"name": "x"}]), "Unknown outputs"),
    "classification": (
        message(pictures([1, 1, 1, 3], data=[1, 2, 3]),
                outputs=[{"name": "class_map", "parameters": {"classification": 3}}]), "does not apply"),
    "a wrong timeout": (message(pictures([1, 1, 1, 3], data=[1, 2, 3]), parameters={"timeout": "x"}), "microseconds"),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_request_is_rejected(case: str) -> None:
    (body, json_bytes), message_part = INVALID[case]
    with pytest.raises(BadRequest, match=message_part):
        kserve_codec.parse(body, json_bytes, LIMITS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {"name": st.sampled_from(["pictures", "image", "class_map"]) | JSON},
    optional={
        "datatype": st.sampled_from(["UINT8", "BYTES"]) | JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=5) | JSON,
        "data": JSON,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 40) | JSON}) | JSON,
    },
)


@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(ENTRY, max_size=2) | JSON}, optional={"outputs": JSON, "parameters": JSON}
    ),
    st.binary(max_size=40),
    st.integers(-2, 2) | st.none(),
)
@settings(max_examples=300, deadline=None)
def test_any_request_is_parsed_or_rejected(request: object, tail: bytes, off: int | None) -> None:
    text = orjson.dumps(request)
    with contextlib.suppress(RequestError):
        kserve_codec.parse(text + tail, None if off is None else max(0, len(text) + off), LIMITS)


def test_a_shape_over_the_limit_is_rejected_without_allocation() -> None:
    with pytest.raises(ImageTooLarge, match="limit 100"):
        parse(pictures([1, 2**40, 2**40, 3], parameters={"binary_data_size": 3}), tail=b"abc")


def test_json_over_the_limit_is_rejected() -> None:
    with pytest.raises(PayloadTooLarge, match="Send the tensors as binary"):
        kserve_codec.parse(b" " * (kserve_codec.MAX_JSON_BYTES + 1), None, LIMITS)


def test_outputs_too_large_for_json_are_rejected() -> None:
    maps = np.zeros((1, 3000, 3000), dtype=np.uint8)
    with pytest.raises(BadRequest, match="Request the outputs as binary"):
        kserve_codec.pack({}, {"a": maps}, {"a": False})
    assert len(kserve_codec.pack({}, {"a": maps}, {"a": True})[0]) > maps.size


def test_pack_writes_json_then_binary_data() -> None:
    maps = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    body, json_bytes = kserve_codec.pack({"model_name": "m"}, {"a": maps, "b": maps}, {"a": True, "b": False})
    message_part = orjson.loads(body[:json_bytes])
    assert message_part["model_name"] == "m"
    assert message_part["outputs"] == [
        {"name": "a", "datatype": "UINT8", "shape": [1, 2, 3], "parameters": {"binary_data_size": 6}},
        {"name": "b", "datatype": "UINT8", "shape": [1, 2, 3], "data": [0, 1, 2, 3, 4, 5]},
    ]
    assert body[json_bytes:] == maps.tobytes()
