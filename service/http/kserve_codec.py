"""The messages of the Open Inference Protocol (KServe V2, REST), with Triton's binary extension: bytes <-> numpy.

A message is JSON; with the extension the bytes of tensors follow it, in order, and a header tells where JSON ends.
Knows no HTTP. Sizes are checked against limits before anything is allocated.
"""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Final

import numpy as np
import orjson
from pydantic import BaseModel, Field, StrictInt, ValidationError

from service.errors import BadRequest, ImageTooLarge, PayloadTooLarge
from service.types import CLASS_MAP, PICTURES, UInt8Array

MAX_JSON_BYTES: Final = 8 * 1024 * 1024  # a list of numbers takes many times its text in memory
IMAGE: Final = "image"
CONFIDENCE: Final = "confidence"
INPUTS: Final = (
    {"name": PICTURES, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
    {"name": IMAGE, "datatype": "BYTES", "shape": [-1]},
)

Name = Annotated[str, Field(max_length=256)]
Parameters = dict[str, Any]


class _Tensor(BaseModel):
    name: Name
    datatype: str
    shape: list[Annotated[StrictInt, Field(ge=1)]] = Field(max_length=8)
    parameters: Parameters = {}
    data: list[Any] | None = None


class _Output(BaseModel):
    name: Name
    parameters: Parameters = {}


class _Request(BaseModel):
    id: Name | None = None
    parameters: Parameters = {}
    inputs: list[_Tensor] = Field(max_length=8)
    outputs: list[_Output] = Field(default=[], max_length=8)


@dataclass(frozen=True, slots=True)
class Limits:
    """pictures: of one request. pixels: height times width of one picture."""

    pictures: int
    pixels: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for.

    pictures: encoded ones, or (H, W, 3) uint8 RGB. outputs: names, and whether each is to travel as bytes.
    timeout_s: the request's own, if it has one.
    """

    id: str | None
    pictures: Sequence[bytes | UInt8Array]
    outputs: Mapping[str, bool]
    timeout_s: float | None


def parse(body: bytes, json_bytes: int | None, limits: Limits) -> Wanted:
    """Read a request. json_bytes: where its JSON ends, by the header; None: it is JSON alone.

    Raises BadRequest, PayloadTooLarge or ImageTooLarge.
    """
    end = len(body) if json_bytes is None else json_bytes
    if end > min(len(body), MAX_JSON_BYTES):
        raise _json_too_long(end, len(body))
    request = _parse_json(body[:end])
    raw = _share_out(request.inputs, memoryview(body)[end:])
    if len(request.inputs) != 1:
        names = [tensor.name for tensor in request.inputs]
        raise BadRequest(f"inputs are {names}; expected one of {PICTURES!r} (UINT8) and {IMAGE!r} (BYTES).")
    tensor = request.inputs[0]
    pictures = _encoded(tensor, raw[0], limits) if tensor.name == IMAGE else _arrays(tensor, raw[0], limits)
    return Wanted(request.id, pictures, _outputs(request), _timeout_s(request.parameters))


def pack(head: Mapping[str, Any], outputs: Mapping[str, UInt8Array], binary: Mapping[str, bool]) -> tuple[bytes, int]:
    """A response, and how many of its bytes are JSON.

    outputs: (N, H, W) uint8 by name. binary: which of them travel as bytes after the JSON.
    Raises BadRequest when the others are too large for JSON.
    """
    as_json = sum(values.size for name, values in outputs.items() if not binary[name])
    if as_json > MAX_JSON_BYTES:
        raise BadRequest(
            f"the outputs have {as_json} values, at most {MAX_JSON_BYTES} come as JSON. Ask for binary data."
        )
    described, tail = [], []
    for name, values in outputs.items():
        entry: dict[str, Any] = {"name": name, "datatype": "UINT8", "shape": list(values.shape)}
        if binary[name]:
            entry["parameters"] = {"binary_data_size": values.size}
            tail.append(values.tobytes())
        else:
            entry["data"] = values.ravel()
        described.append(entry)
    text = orjson.dumps({**head, "outputs": described}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([text, *tail]), len(text)


def _parse_json(text: bytes) -> _Request:
    try:
        return _Request.model_validate(orjson.loads(text))
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:4])
        raise BadRequest(f"the request is none of the Open Inference Protocol: {told}.") from None
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"the request is no JSON: {error}. With binary tensors: is the header's length right?"
        ) from None


def _json_too_long(end: int, length: int) -> BadRequest | PayloadTooLarge:
    if end > length:
        return BadRequest(f"Inference-Header-Content-Length is {end}, but the body has {length} bytes.")
    return PayloadTooLarge(
        f"the JSON has {end} bytes, at most {MAX_JSON_BYTES} are taken. Send tensors as binary data."
    )


def _share_out(tensors: Sequence[_Tensor], tail: memoryview) -> list[memoryview | None]:
    """Each tensor's bytes; None for those in the JSON. Raises BadRequest when some lack or are left over."""
    sizes = [tensor.parameters.get("binary_data_size") for tensor in tensors]
    if any(size is not None and (type(size) is not int or size < 0) for size in sizes):
        raise BadRequest(f"binary_data_size is {sizes}; expected numbers of bytes.")
    announced = sum(size or 0 for size in sizes)
    if announced != len(tail):
        raise BadRequest(f"{len(tail)} bytes follow the JSON; the inputs' binary_data_size say {announced}.")
    parts: list[memoryview | None] = []
    for size in sizes:
        parts.append(None if size is None else tail[:size])
        tail = tail[size or 0 :]
    return parts


def _arrays(tensor: _Tensor, raw: memoryview | None, limits: Limits) -> list[UInt8Array]:
    shape = tensor.shape
    if tensor.name != PICTURES or tensor.datatype != "UINT8" or len(shape) != 4 or shape[3] != 3:
        raise BadRequest(
            f"the input is {tensor.name!r} {tensor.datatype} {shape}; expected {PICTURES!r} UINT8 [N, H, W, 3] or "
            f"{IMAGE!r} BYTES [N]."
        )
    _check_count(shape[0], limits)
    if shape[1] * shape[2] > limits.pixels:
        raise ImageTooLarge(
            f"the pictures are {shape[2]}x{shape[1]}, {shape[1] * shape[2]} pixels; at most {limits.pixels} are taken. "
            "Scale them down, or raise ALIGNSEG_MAX_PIXELS."
        )
    flat = _numbers(tensor) if raw is None else np.frombuffer(raw, dtype=np.uint8)
    if flat.size != math.prod(shape):
        raise BadRequest(f"{tensor.name!r} has {flat.size} values; its shape {shape} takes {math.prod(shape)}.")
    return list(flat.reshape(shape))


def _numbers(tensor: _Tensor) -> UInt8Array:
    """A JSON list, flat or nested, as (n,) uint8. bytes() takes whole numbers from 0 to 255 and nothing else."""
    data = _given(tensor)
    try:
        for _ in tensor.shape[1:]:
            if data and isinstance(data[0], list):
                data = list(chain.from_iterable(data))
        return np.frombuffer(bytes(data), dtype=np.uint8)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"data of {tensor.name!r} are no numbers from 0 to 255: {error}.") from None


def _encoded(tensor: _Tensor, raw: memoryview | None, limits: Limits) -> list[bytes]:
    count = math.prod(tensor.shape)
    if tensor.datatype != "BYTES" or not tensor.shape:
        raise BadRequest(f"{IMAGE!r} is {tensor.datatype} {tensor.shape}; expected BYTES [N]: files such as JPEG.")
    _check_count(count, limits)
    pictures = _from_base64(_given(tensor)) if raw is None else _split(raw, count)
    if len(pictures) != count:
        raise BadRequest(f"{IMAGE!r} has {len(pictures)} elements; its shape {tensor.shape} takes {count}.")
    return pictures


def _split(raw: memoryview, count: int) -> list[bytes]:
    """Elements of a BYTES tensor: each a little-endian length of 4 bytes, then so many bytes."""
    elements: list[bytes] = []
    while raw and len(elements) <= count:  # one too many is enough to know
        end = 4 + int.from_bytes(raw[:4], "little")
        if len(raw) < max(4, end):
            raise BadRequest(f"an element of {IMAGE!r} ends after {len(raw)} of {max(4, end)} bytes.")
        elements.append(bytes(raw[4:end]))
        raw = raw[end:]
    return elements


def _from_base64(data: list[Any]) -> list[bytes]:
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (binascii.Error, ValueError, TypeError):
        raise BadRequest(f"data of {IMAGE!r} are no base64, which is how bytes travel in JSON.") from None


def _given(tensor: _Tensor) -> list[Any]:
    if tensor.data is None:
        raise BadRequest(f"{tensor.name!r} has neither data nor binary_data_size; shared memory is not taken.")
    return tensor.data


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.pictures:
        raise BadRequest(f"{count} pictures came; at most {limits.pictures} are taken (ALIGNSEG_MAX_IMAGES).")


def _outputs(request: _Request) -> dict[str, bool]:
    """What is asked for; the class map when nothing is."""
    default = request.parameters.get("binary_data_output") is True
    asked = {output.name: output.parameters.get("binary_data", default) is True for output in request.outputs}
    if unknown := sorted(set(asked) - {CLASS_MAP, CONFIDENCE}):
        raise BadRequest(f"outputs are {unknown}; there are {CLASS_MAP!r} and {CONFIDENCE!r}.")
    if any("classification" in output.parameters for output in request.outputs):
        raise BadRequest("classification does not apply to class maps; leave it out.")
    return asked or {CLASS_MAP: default}


def _timeout_s(parameters: Parameters) -> float | None:
    """Triton's timeout, in microseconds; 0 is none."""
    value = parameters.get("timeout", 0)
    if type(value) is not int or value < 0:
        raise BadRequest(f"timeout is {str(value)[:40]}; expected a whole number of microseconds.")
    return value / 1e6 if value else None
