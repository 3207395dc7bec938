"""What segments the files of `alignseg segment`: the model in this process, or a server."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alignseg_serve.segmentation.record import ModelId
from alignseg_serve.segmentation.segmenter import Segmenter
from service.errors import AlignSegError, EngineError, RequestError
from service.model_folder import manifest as manifests
from service.model_folder.manifest import Manifest
from service.settings import Settings

REQUESTS_IN_FLIGHT: Final = 4  # keep a server's decoder, engine and encoder busy while other bodies are in transit


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """The PNG files of one image. overlay: None unless requested. model: that made them; a server may change it."""

    mask: bytes
    overlay: bytes | None
    model: ModelId


class ImageFailed(Exception):
    """One image can't be segmented; others can. Any other exception ends the run."""


@dataclass(frozen=True, slots=True)
class Backend:
    """segment: (path of an image, whether to draw an overlay) -> its files; raises ImageFailed.

    model: that will segment. in_flight: number of images to segment at once, each in a thread; with 1, no thread is
    started.
    """

    segment: Callable[[Path, bool], MaskFiles]
    model: ModelId
    in_flight: int = 1


def local_backend(segmenter: Segmenter) -> Backend:
    """Segment in this process."""
    model = _model_id(segmenter.manifest)
    return Backend(lambda path, overlay: _segment(segmenter, model, path, overlay), model)


@contextmanager
def lazy_local_backend(settings: Settings) -> Iterator[Backend]:
    """Segment in this process; the engine is loaded for the first image, not when nothing is left to do.

    Raises ManifestError. The backend raises what Segmenter raises.
    """
    model = _model_id(manifests.load(settings.model))
    with ExitStack() as stack:
        segmenter: Segmenter | None = None

        def segment(path: Path, overlay: bool) -> MaskFiles:
            nonlocal segmenter
            if segmenter is None:
                segmenter = stack.enter_context(Segmenter.from_settings(settings))
            return _segment(segmenter, model, path, overlay)

        yield Backend(segment, model)


def _segment(segmenter: Segmenter, model: ModelId, path: Path, overlay: bool) -> MaskFiles:
    try:
        result = segmenter.segment(path, overlay=overlay)
        return MaskFiles(result.mask_png, result.overlay_png if overlay else None, model)
    except (RequestError, EngineError) as error:
        raise ImageFailed(str(error)) from error


def _model_id(manifest: Manifest) -> ModelId:
    onnx = manifest.files.get("onnx")
    return ModelId(manifest.name, manifest.version, onnx.sha256 if onnx else None)


@contextmanager
def server_backend(url: str, api_key: str | None) -> Iterator[Backend]:
    """Segment with the server at `url`; connections are closed on exit.

    Raises AlignSegError when httpx is missing, `url` is not a URL, or the server can't be used: it is unreachable,
    overloaded until the client's timeout, or rejects the API key.
    """
    try:
        from alignseg_serve.client import Client, ClientError
        from alignseg_serve.client.errors import InvalidImageError, ServerError, ServerTimeout
    except ImportError as error:
        raise AlignSegError(f"{error}. --server needs httpx: pip install -e '.[client]'") from error

    def segment(path: Path, overlay: bool) -> MaskFiles:
        try:
            result = client.segment(path, overlay=overlay)
        except (InvalidImageError, ServerError, ServerTimeout) as error:
            raise ImageFailed(str(error)) from error
        return MaskFiles(result.mask_png, result.overlay_png, ModelId(result.model, result.version))

    try:
        with Client(url, api_key=api_key) as client:
            table = client.classes()
            yield Backend(segment, ModelId(table.model, table.version), REQUESTS_IN_FLIGHT)
    except (ClientError, ValueError) as error:
        raise AlignSegError(str(error)) from error
