"""A segmenter that is this process: by the same road as the server's."""

from pathlib import Path

from alignseg_serve.segment.files import Masks, PictureFailed, Segmenter
from service.errors import EngineError, RequestError
from service.imaging.model_input import ImageLimits, open_image
from service.model_folder.manifest import Manifest
from service.rendering import images
from service.types import Engine


def locally(manifest: Manifest, engine: Engine, max_pixels: int) -> Segmenter:
    """Segment with `engine`. max_pixels: width times height of the largest picture that is taken."""

    def segment(picture: Path, overlay: bool) -> Masks:
        try:
            return _segment(picture.read_bytes(), manifest, engine, max_pixels, overlay)
        except (RequestError, EngineError) as error:
            raise PictureFailed(str(error)) from error

    return segment


def _segment(data: bytes, manifest: Manifest, engine: Engine, max_pixels: int, overlay: bool) -> Masks:
    pixels, seen = open_image(data, manifest.input.buckets, ImageLimits(max_pixels), with_pixels=overlay)
    ids = seen.assemble([engine.infer(seen.tensor(0)[None]).ids[0]])
    drawn = None if pixels is None else images.overlay_png(pixels, ids, manifest.palette)
    return Masks(images.indexed_png(ids, manifest.palette, names=manifest.names), drawn)
