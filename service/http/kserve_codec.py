"""Messages of the Open Inference Protocol (KServe V2, REST) with Triton's binary extension: bytes <-> numpy.

A message is JSON. With the extension the bytes of tensors follow it, in order, and a header gives the JSON's length.
Knows no HTTP. Sizes are checked against limits before anything is allocated.
"""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson

from service.errors import BadRequest, ImageTooLarge, PayloadTooLarge
from service.http.kserve_request import Parameters, Request, Tensor, validate
from service.types import CLASS_MAP, PICTURES, UInt8Array

JSON_LENGTH: Final = "Inference-Header-Content-Length"
MAX_JSON_BYTES: Final = 8 * 1024 * 1024  # a list of numbers takes many times its text in memory
IMAGE: Final = "image"
CONFIDENCE: Final = "confidence"
INPUTS: Final = (
    {"name": PICTURES, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
    {"name": IMAGE, "datatype": "BYTES", "shape": [-1]},
)
_EXPECTED_INPUT: Final = f"Expected one input: {PICTURES!r} UINT8 [N, H, W, 3], or {IMAGE!r} BYTES [N]"


@dataclass(frozen=True, slots=True)
class Limits:
    """images: per request. pixels: height times width of one image."""

    images: int
    pixels: int


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One parsed request.

    images: encoded files, or (H, W, 3) uint8 RGB. outputs: names, and whether each is returned as binary data.
    timeout_s: the request's own, if it has one.
    """

    id: str | None
    images: Sequence[bytes | UInt8Array]
    outputs: Mapping[str, bool]
    timeout_s: float | None


def parse(body: bytes, json_bytes: int | None, limits: Limits) -> InferRequest:
    """Parse a request. json_bytes: length of its JSON, from the header; None if the whole body is JSON.

    Raises BadRequest, PayloadTooLarge or ImageTooLarge.
    """
    end = len(body) if json_bytes is None else json_bytes
    if end > min(len(body), MAX_JSON_BYTES):
        raise _json_too_long(end, len(body))
    request = _parse_json(body[:end])
    return read(request, _split_binary_data(request.inputs, memoryview(body)[end:]), limits)


def read(request: Request, raw: Sequence[memoryview | None], limits: Limits) -> InferRequest:
    """The images of a validated request. raw: each input's bytes; None for inputs in the request itself.

    Raises BadRequest or ImageTooLarge.
    """
    if len(request.inputs) != 1:
        names = [tensor.name for tensor in request.inputs]
        raise BadRequest(f"The request has {len(names)} inputs: {names}. {_EXPECTED_INPUT}.")
    tensor = request.inputs[0]
    images = _files(tensor, raw[0], limits) if tensor.name == IMAGE else _arrays(tensor, raw[0], limits)
    return InferRequest(request.id, images, _outputs(request), _timeout_s(request.parameters))


def pack(head: Mapping[str, Any], outputs: Mapping[str, UInt8Array], binary: Mapping[str, bool]) -> tuple[bytes, int]:
    """Build a response. Returns its bytes, and how many of them are JSON.

    outputs: (N, H, W) uint8 by name. binary: which of them follow the JSON as binary data.
    Raises BadRequest if the others are too large for JSON.
    """
    values_in_json = sum(values.size for name, values in outputs.items() if not binary[name])
    if values_in_json > MAX_JSON_BYTES:
        raise BadRequest(
            f"The outputs have {values_in_json} values, limit {MAX_JSON_BYTES} in JSON. "
            "Request the outputs as binary data."
        )
    entries, tail = [], []
    for name, values in outputs.items():
        entry: dict[str, Any] = {"name": name, "datatype": "UINT8", "shape": list(values.shape)}
        if binary[name]:
            entry["parameters"] = {"binary_data_size": values.size}
            tail.append(values.tobytes())
        else:
            entry["data"] = values.ravel()
        entries.append(entry)
    text = orjson.dumps({**head, "outputs": entries}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([text, *tail]), len(text)


def _parse_json(text: bytes) -> Request:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"Invalid JSON: {error}. If binary data follows the JSON, send the length of the JSON in {JSON_LENGTH}."
        ) from None
    return validate(document)


def _json_too_long(end: int, length: int) -> BadRequest | PayloadTooLarge:
    if end > length:
        return BadRequest(f"{JSON_LENGTH} is {end}, but the body has {length} bytes. Send the length of the JSON.")
    return PayloadTooLarge(f"The JSON has {end} bytes, limit {MAX_JSON_BYTES}. Send the tensors as binary data.")


def _split_binary_data(tensors: Sequence[Tensor], tail: memoryview) -> list[memoryview | None]:
    """Each tensor's bytes; None for tensors in the JSON. Raises BadRequest if bytes are missing or left over."""
    sizes = [tensor.parameters.get("binary_data_size") for tensor in tensors]
    if any(size is not None and (type(size) is not int or size < 0) for size in sizes):
        raise BadRequest(f"binary_data_size is {sizes}. Expected a number of bytes for each binary tensor.")
    declared = sum(size or 0 for size in sizes)
    if declared != len(tail):
        raise BadRequest(f"{len(tail)} bytes follow the JSON, but the inputs' binary_data_size add up to {declared}.")
    parts: list[memoryview | None] = []
    for size in sizes:
        parts.append(None if size is None else tail[:size])
        tail = tail[size or 0 :]
    return parts


def _arrays(tensor: Tensor, raw: memoryview | None, limits: Limits) -> list[UInt8Array]:
    shape = tensor.shape
    if tensor.name != PICTURES or tensor.datatype != "UINT8" or len(shape) != 4 or shape[3] != 3:
        raise BadRequest(f"The input is {tensor.name!r} {tensor.datatype} {shape}. {_EXPECTED_INPUT}.")
    _check_count(shape[0], limits)
    if shape[1] * shape[2] > limits.pixels:
        raise ImageTooLarge(
            f"The images are {shape[2]}x{shape[1]} ({shape[1] * shape[2]} pixels each), limit {limits.pixels} pixels "
            "(ALIGNSEG_MAX_PIXELS). Scale them down, or raise the limit."
        )
    flat = _numbers(tensor) if raw is None else np.frombuffer(raw, dtype=np.uint8)
    if flat.size != math.prod(shape):
        raise BadRequest(f"{tensor.name!r} has {flat.size} values. Its shape {shape} requires {math.prod(shape)}.")
    return list(flat.reshape(shape))


def _numbers(tensor: Tensor) -> UInt8Array:
    """A JSON list, flat or nested, as (n,) uint8. bytes() accepts whole numbers from 0 to 255 and nothing else."""
    data = _json_data(tensor)
    try:
        for _ in tensor.shape[1:]:
            if data and isinstance(data[0], list):
                data = list(chain.from_iterable(data))
        return np.frombuffer(bytes(data), dtype=np.uint8)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"Invalid data in {tensor.name!r}: {error}. Expected whole numbers from 0 to 255.") from None


def _files(tensor: Tensor, raw: memoryview | None, limits: Limits) -> list[bytes]:
    count = math.prod(tensor.shape)
    if tensor.datatype != "BYTES" or not tensor.shape:
        raise BadRequest(f"{IMAGE!r} is {tensor.datatype} {tensor.shape}. Expected BYTES [N]: files such as JPEG.")
    _check_count(count, limits)
    files = _from_base64(_json_data(tensor)) if raw is None else _split_elements(raw, count)
    if len(files) != count:
        raise BadRequest(f"{IMAGE!r} has {len(files)} elements. Its shape {tensor.shape} requires {count}.")
    return files


def _split_elements(raw: memoryview, count: int) -> list[bytes]:
    """Elements of a BYTES tensor: each a little-endian length of 4 bytes, then that many bytes."""
    elements: list[bytes] = []
    while raw and len(elements) <= count:  # one more than expected is enough for an error
        end = 4 + int.from_bytes(raw[:4], "little")
        if len(raw) < max(4, end):
            raise BadRequest(f"An element of input {IMAGE!r} is truncated: it has {len(raw)} of {max(4, end)} bytes.")
        elements.append(bytes(raw[4:end]))
        raw = raw[end:]
    return elements


def _from_base64(data: list[Any]) -> list[bytes]:
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (binascii.Error, ValueError, TypeError):
        raise BadRequest(f"Invalid base64 in input {IMAGE!r}. In JSON, encode each file as a base64 string.") from None


def _json_data(tensor: Tensor) -> list[Any]:
    if tensor.data is None:
        raise BadRequest(f"Input {tensor.name!r} has no data and no binary_data_size. Shared memory is not supported.")
    return tensor.data


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.images:
        raise BadRequest(f"The request has {count} images, limit {limits.images} (ALIGNSEG_MAX_IMAGES).")


def _outputs(request: Request) -> dict[str, bool]:
    """The requested outputs, by default the class map."""
    default = request.parameters.get("binary_data_output") is True
    outputs = {output.name: output.parameters.get("binary_data", default) is True for output in request.outputs}
    if unknown := sorted(set(outputs) - {CLASS_MAP, CONFIDENCE}):
        raise BadRequest(f"Unknown outputs: {unknown}. Supported: {CLASS_MAP!r} and {CONFIDENCE!r}.")
    if any("classification" in output.parameters for output in request.outputs):
        raise BadRequest("The output parameter classification does not apply to class maps. Remove it.")
    return outputs or {CLASS_MAP: default}


def _timeout_s(parameters: Parameters) -> float | None:
    """Triton's timeout, in microseconds; 0 means none."""
    value = parameters.get("timeout", 0)
    if type(value) is not int or value < 0:
        raise BadRequest(f"timeout is {str(value)[:40]}. Expected a whole number of microseconds, 0 for none.")
    return value / 1e6 if value else None
