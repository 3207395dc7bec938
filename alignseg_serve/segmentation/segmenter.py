"""Segments images in this process, through the same decoder, resizing and engine as the server."""

import os
import threading
import time
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final, Self, cast, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from alignseg_serve.segmentation.result import Segmentation
from alignseg_serve.settings import load_settings
from service.engines.selection import open_engine
from service.errors import BadRequest
from service.imaging.decode import decode, decode_pillow
from service.imaging.model_input import ImageLimits, ModelInput, open_image
from service.imaging.tile_plan import TileMode
from service.model_folder import manifest as manifests
from service.model_folder.manifest import Manifest
from service.rendering.class_stats import check_ids, summarize
from service.rendering.selection import select
from service.settings import Settings
from service.types import Engine, UInt8Array

ImageInput = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]


class Segmenter:
    """A model in this process, loaded once. Threads may share it; one image is inferred at a time.

    with Segmenter() as segmenter:
        result = segmenter.segment("street.jpg")
    """

    def __init__(self, model: str | os.PathLike[str] | None = None, engine: str | None = None) -> None:
        """Load the model of a folder into an engine.

        model: the folder; None: ALIGNSEG_MODEL, else weights/alignseg-lite. engine: a name as of
        `alignseg serve --engine`; None: ALIGNSEG_ENGINE, else auto, the fastest that is installed.
        Raises SettingsError, ManifestError when the folder has no valid model, EngineUnavailable, EngineError.
        """
        self._open(load_settings({"model": model, "engine": engine}))

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Load the model and engine that `settings` name. Raises what the constructor raises."""
        self = cls.__new__(cls)
        self._open(settings)
        return self

    @classmethod
    def from_engine(cls, manifest: Manifest, engine: Engine, settings: Settings) -> Self:
        """Use an engine that is already open. settings: for max_pixels and max_tiles."""
        self = cls.__new__(cls)
        self._set(manifest, engine, settings)
        return self

    def _open(self, settings: Settings) -> None:
        manifest = manifests.load(settings.model)
        self._set(manifest, open_engine(settings, manifest), settings)

    def _set(self, manifest: Manifest, engine: Engine, settings: Settings) -> None:
        self.manifest, self.engine = manifest, engine
        self._limits = ImageLimits(settings.max_pixels, settings.max_tiles)
        self._lock = threading.Lock()  # an engine takes one call at a time

    def segment(
        self,
        image: ImageInput,
        *,
        overlay: bool = False,
        confidence: bool = False,
        tile: bool | str = "auto",
        classes: Sequence[str] = (),
    ) -> Segmentation:
        """Segment an image: assign a class to each pixel.

        image: a path, the bytes of a JPEG, PNG, WebP, AVIF, BMP or TIFF file, a Pillow image, or (H, W, 3) uint8 RGB.
        overlay: keep the decoded image for the overlay; without it, a file is decoded again when the overlay is drawn.
        confidence: compute the probability of each pixel's class. tile: "auto", "height", True or False, how the image
        is scaled down to the model's input; see service/imaging/tile_plan.py. classes: keep only these, by name or id;
        "road=drivable" renames and merges, see service/rendering/selection.py.
        Raises OSError when a file can't be read, TypeError or ValueError for another type or array shape, RequestError
        when the image can't be decoded or is too large, or an option is invalid, EngineError.
        """
        self._check_confidence(confidence)
        selection = select(classes, self.manifest, self.manifest.name) if classes else None
        began = time.perf_counter()
        source = _file_or_pixels(image)
        pixels, model_input = open_image(
            source, self.manifest.input.buckets, self._limits, tile=_tile_mode(tile), with_pixels=overlay
        )
        decoded = time.perf_counter()
        ids, probability = self._infer(model_input, confidence)
        timing_ms = {"decode": (decoded - began) * 1e3, "infer": (time.perf_counter() - decoded) * 1e3}
        if selection is None:
            present = summarize(ids, self.manifest, probability)
        else:
            check_ids(int(ids.max()), len(self.manifest.classes))
            ids = selection.apply(ids)
            present = summarize(ids, selection, probability, with_unselected=True)
        read_pixels = partial(self._read_pixels, source if pixels is None else pixels)
        height, width = model_input.input_size
        names = (selection or self.manifest).names
        size, tiles = (width, height), model_input.count
        return Segmentation(ids, tuple(present), probability, timing_ms, self.manifest, read_pixels, size, tiles, names)

    def _check_confidence(self, requested: bool) -> None:
        if requested and not self.engine.has_confidence:
            raise BadRequest(
                f"Model {self.manifest.name} {self.manifest.version} has no confidence output. "
                "Remove confidence=True or export the model again."
            )

    def _infer(self, model_input: ModelInput, with_confidence: bool) -> tuple[UInt8Array, UInt8Array | None]:
        """Ids and probabilities, (H, W) uint8 at the image's size, from one batch or, with tiles, several."""
        ids: list[UInt8Array] = []
        confidences: list[UInt8Array] = []
        for start in range(0, model_input.count, self.engine.max_batch):
            stop = min(start + self.engine.max_batch, model_input.count)
            batch = np.stack([model_input.tensor(index) for index in range(start, stop)])
            with self._lock:
                inference = self.engine.infer(batch, with_confidence)
            ids += list(inference.ids)
            confidences += [] if inference.confidence is None else list(inference.confidence)
        return model_input.assemble_ids(ids), model_input.assemble(confidences) if confidences else None

    def _read_pixels(self, source: bytes | UInt8Array) -> UInt8Array:
        return decode(source, self._limits.max_pixels) if isinstance(source, bytes) else source

    def close(self) -> None:
        """Release the engine's memory."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _tile_mode(tile: bool | str) -> TileMode:
    """Raises BadRequest for a name that tile_plan.py does not have."""
    name = str(tile).lower() if isinstance(tile, bool) else tile
    if name not in get_args(TileMode):
        raise BadRequest(f"tile is {tile!r}. Expected True, False, or one of {', '.join(get_args(TileMode))}.")
    return cast("TileMode", name)


def _file_or_pixels(image: ImageInput) -> bytes | UInt8Array:
    """A file's bytes, or (H, W, 3) uint8 RGB. Raises OSError, TypeError, ValueError or RequestError."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, Image.Image):
        return decode_pillow(image)
    if not isinstance(image, np.ndarray):
        raise TypeError(f"image: got {type(image).__name__}; expected a path, bytes, a Pillow image or a NumPy array.")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"image: got an array {image.dtype} {image.shape}; expected uint8 (H, W, 3) in RGB order.")
    return image


_default_lock: Final = threading.Lock()


@cache
def _default() -> Segmenter:
    return Segmenter()


def segment(
    image: ImageInput,
    *,
    overlay: bool = False,
    confidence: bool = False,
    tile: bool | str = "auto",
    classes: Sequence[str] = (),
) -> Segmentation:
    """Segment an image with the default model, which is loaded on the first call and kept; see Segmenter.segment."""
    with _default_lock:
        segmenter = _default()
    return segmenter.segment(image, overlay=overlay, confidence=confidence, tile=tile, classes=classes)
