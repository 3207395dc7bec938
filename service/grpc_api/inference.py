"""ModelInfer: the same tensors as over HTTP, see http/kserve_codec.py, with the same admission."""

import asyncio
import time
from typing import Any, Final

from service.admission.stalled_uploads import Permit
from service.errors import BadRequest, DeadlineExceeded, UploadTooSlow
from service.grpc_api.calls import Call
from service.grpc_api.description import require_model
from service.grpc_api.messages import message
from service.http import kserve_codec
from service.http.kserve_codec import IMAGE, InferRequest, Limits
from service.http.kserve_maps import Maps, segment_images, stack
from service.http.kserve_request import validate
from service.http.uploads import declared_size

_ModelInferRequest: Final = message("ModelInferRequest")
_ModelInferResponse: Final = message("ModelInferResponse")


async def model_infer(call: Call) -> bytes:
    """Class maps of N images. Raises RequestError. Work that is not needed any more is cancelled."""
    pipeline = call.pipeline
    # gRPC gives a message when it is complete: until then its size is not known, and a slow one counts as stalled.
    permit = pipeline.admission.acquire(declared_size("", pipeline.settings.max_body_bytes), call.deadline)
    work = asyncio.ensure_future(_infer(call, permit))
    work.add_done_callback(permit.release)
    permit.on_preempted = work.cancel
    try:
        done, _ = await asyncio.wait({work}, timeout=max(0.0, call.deadline - time.monotonic()))
        if permit.preempted:
            raise UploadTooSlow("The message arrived too slowly and its slot was reassigned. Send it faster, or again.")
        if not done:
            raise DeadlineExceeded("No result by the deadline. Retry later, or allow more time.")
        return work.result()
    finally:
        work.cancel()


async def _infer(call: Call, permit: Permit) -> bytes:
    pipeline = call.pipeline
    body = [await call.read()]
    permit.received(len(body[0]))
    permit.body_read()
    limits = Limits(pipeline.settings.max_images, pipeline.settings.max_pixels)
    name, version, infer_request = await pipeline.off_loop(_parse, body.pop(), limits)
    require_model(pipeline, name, version)
    maps = await segment_images(pipeline, infer_request, call.deadline, permit)
    return await pipeline.off_loop(_response, infer_request, maps)


def _parse(body: bytes, limits: Limits) -> tuple[str, str, InferRequest]:
    """Model, version and request. Raises RequestError."""
    try:
        request = _ModelInferRequest.FromString(body)
    except Exception as error:  # protobuf's DecodeError, and UnicodeDecodeError
        raise BadRequest(f"Not a ModelInferRequest: {error}.") from None
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(f"{len(request.inputs)} inputs, {len(raw)} raw_input_contents. Expected one for each input.")
    document = {
        "id": request.id or None,
        "parameters": _parameters(request.parameters),
        "inputs": [_tensor(tensor) for tensor in request.inputs],
        "outputs": [{"name": one.name, "parameters": _parameters(one.parameters)} for one in request.outputs],
    }
    parts: list[memoryview | None] = [memoryview(content) for content in raw]
    parts = parts or [_contents(tensor) for tensor in request.inputs]
    return request.model_name, request.model_version, kserve_codec.read(validate(document), parts, limits)


def _tensor(tensor: Any) -> dict[str, Any]:
    data = list(tensor.contents.uint_contents) or None
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape), "data": data}


def _contents(tensor: Any) -> memoryview | None:
    """Elements of a BYTES tensor as binary data has them; None for numbers."""
    elements = tensor.contents.bytes_contents
    if tensor.name != IMAGE or not elements:
        return None
    return memoryview(b"".join(part for one in elements for part in (len(one).to_bytes(4, "little"), one)))


def _parameters(parameters: Any) -> dict[str, Any]:
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "", None) for name, value in parameters.items()
    }


def _response(infer_request: InferRequest, maps: list[Maps]) -> bytes:
    model = maps[0].model
    response = _ModelInferResponse(model_name=model.name, model_version=model.version, id=infer_request.id or "")
    for name in infer_request.outputs:
        values = stack([entry.outputs[name] for entry in maps])
        response.outputs.add(name=name, datatype="UINT8", shape=values.shape)
        response.raw_output_contents.append(values.tobytes())
    content: bytes = response.SerializeToString()
    return content
