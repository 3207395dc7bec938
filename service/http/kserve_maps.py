"""The class maps of an Open Inference Protocol request, over HTTP and over gRPC."""

import time
from dataclasses import dataclass
from functools import partial

import numpy as np

from service.admission.stalled_uploads import Permit
from service.errors import BadRequest, ImageTooLarge
from service.http.kserve_codec import CONFIDENCE, InferRequest
from service.http.multi_image import for_each
from service.inference.pipeline import Pipeline
from service.model_folder.manifest import Manifest
from service.rendering.segmentation import Segmentation
from service.types import CLASS_MAP, UInt8Array


@dataclass(frozen=True, slots=True)
class Maps:
    """What is kept of a segmentation. Its pixels are not, so that they leave the pixel budget."""

    model: Manifest
    outputs: dict[str, UInt8Array]


async def segment_images(
    pipeline: Pipeline, infer_request: InferRequest, deadline: float, permit: Permit
) -> list[Maps]:
    """The maps of each image, in order. The first failure ends all: a tensor has no place for an error."""
    if infer_request.timeout_s is not None:
        deadline = min(deadline, time.monotonic() + infer_request.timeout_s)
    count = len(infer_request.images)
    maps_by_index: dict[int, Maps] = {}
    max_pixels = pipeline.settings.max_pixels  # of all maps together: they wait for each other outside the pixel budget

    def keep_maps(index: int, seg: Segmentation) -> bytes:
        if count * seg.ids.size > max_pixels:
            raise ImageTooLarge(
                f"The output has {count} maps of {seg.ids.size} pixels, limit {max_pixels} pixels in total "
                "(ALIGNSEG_MAX_PIXELS). Send fewer images per request."
            )
        maps = {CLASS_MAP: seg.ids, CONFIDENCE: seg.confidence}
        outputs = {name: values for name in infer_request.outputs if (values := maps[name]) is not None}
        maps_by_index[index] = Maps(seg.model, outputs)
        return b""

    async def segment_at(index: int, permit: Permit) -> None:
        render = partial(keep_maps, index)
        with_confidence = CONFIDENCE in infer_request.outputs
        await pipeline.segment(infer_request.images[index], render, deadline, permit, with_confidence=with_confidence)

    await for_each(pipeline.admission, permit, range(count), segment_at)
    return [maps_by_index[index] for index in range(count)]


def stack(maps: list[UInt8Array]) -> UInt8Array:
    """N maps as (N, H, W). Raises BadRequest if their sizes differ."""
    if len({values.shape for values in maps}) != 1:
        sizes = ", ".join(f"{values.shape[1]}x{values.shape[0]}" for values in maps)
        raise BadRequest(f"The images have different sizes: {sizes}. Send one request per size.")
    return np.stack(maps)
