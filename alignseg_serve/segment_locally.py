"""A segmenter that is this process: by the same road as the server's."""

from pathlib import Path

import numpy as np

from alignseg_serve.segment_files import Masks, PictureFailed, Segmenter
from service import encode
from service.contracts import Engine
from service.decode import decode
from service.errors import EngineError, RequestError
from service.manifest import Manifest
from service.prepare import prepare, restore


def locally(manifest: Manifest, engine: Engine, max_pixels: int) -> Segmenter:
    """Segment with `engine`. max_pixels: width times height of the largest picture that is taken."""

    def segment(picture: Path, overlay: bool) -> Masks:
        try:
            return _segment(picture.read_bytes(), manifest, engine, max_pixels, overlay)
        except (RequestError, EngineError) as error:
            raise PictureFailed(str(error)) from error

    return segment


def _segment(data: bytes, manifest: Manifest, engine: Engine, max_pixels: int, overlay: bool) -> Masks:
    pixels = decode(data, max_pixels)
    prepared = prepare(pixels, manifest.input.buckets)
    ids = restore(engine.infer(np.ascontiguousarray(prepared.pixels[None])).ids[0], prepared).ids
    drawn = encode.overlay_png(pixels, ids, manifest.palette) if overlay else None
    return Masks(encode.indexed_png(ids, manifest.palette), drawn)
