"""What segments the files of `alignseg segment`: the model in this process, or a server."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from alignseg_serve.segmentation.outputs import Options, render
from alignseg_serve.segmentation.record import ModelId
from alignseg_serve.segmentation.segmenter import Segmenter
from service.errors import AlignSegError, EngineError, RequestError
from service.model_folder import manifest as manifests
from service.model_folder.manifest import Manifest
from service.rendering.selection import select
from service.settings import Settings

Result = TypeVar("Result")
REQUESTS_IN_FLIGHT: Final = 4  # keep a server's decoder, engine and encoder busy while other bodies are in transit


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """The files of one image by their suffixes, see Options. model: that made them; a server may change it."""

    files: Mapping[str, bytes]
    model: ModelId


class ImageFailed(Exception):
    """One image can't be segmented; others can. Any other exception ends the run."""


@dataclass(frozen=True, slots=True)
class Backend:
    """segment: (path of an image, options) -> its files; raises ImageFailed.

    model: that will segment. in_flight: number of images to segment at once, each in a thread; with 1, no thread is
    started.
    """

    segment: Callable[[Path, Options], MaskFiles]
    model: ModelId
    in_flight: int = 1


def local_backend(segmenter: Segmenter) -> Backend:
    """Segment in this process."""
    model = _model_id(segmenter.manifest)
    return Backend(lambda path, options: _segment(segmenter, model, path, options), model)


@contextmanager
def lazy_local_backend(settings: Settings, options: Options) -> Iterator[Backend]:
    """Segment in this process; the engine is loaded for the first image, not when nothing is left to do.

    Raises ManifestError, and BadRequest for an unknown class. The backend raises what Segmenter raises.
    """
    manifest = manifests.load(settings.model)
    model = _model_id(manifest)
    if options.classes:
        select(options.classes, manifest, manifest.name)
    with ExitStack() as stack:
        segmenter: Segmenter | None = None

        def segment(path: Path, options: Options) -> MaskFiles:
            nonlocal segmenter
            if segmenter is None:
                segmenter = stack.enter_context(Segmenter.from_settings(settings))
            return _segment(segmenter, model, path, options)

        yield Backend(segment, model)


def _segment(segmenter: Segmenter, model: ModelId, path: Path, options: Options) -> MaskFiles:
    try:
        return MaskFiles(render(_with_options(segmenter.segment, path, options), options), model)
    except (RequestError, EngineError) as error:
        raise ImageFailed(str(error)) from error


def _with_options(segment: Callable[..., Result], path: Path, options: Options) -> Result:
    """Call `Segmenter.segment` or `Client.segment`, which have the same arguments."""
    return segment(
        path, overlay=options.overlay, confidence=options.confidence, tile=options.tile, classes=options.classes
    )


def _model_id(manifest: Manifest) -> ModelId:
    onnx = manifest.files.get("onnx")
    return ModelId(manifest.name, manifest.version, onnx.sha256 if onnx else None)


@contextmanager
def server_backend(url: str, api_key: str | None, options: Options) -> Iterator[Backend]:
    """Segment with the server at `url`; connections are closed on exit.

    Raises AlignSegError when httpx is missing, `url` is not a URL, or the server can't be used: it is unreachable,
    overloaded until the client's timeout, rejects the API key, or its model lacks a class of the options.
    """
    try:
        from alignseg_serve.class_selection import selected_classes
        from alignseg_serve.client import Client, ClientError
        from alignseg_serve.client.errors import InvalidImageError, ServerError, ServerTimeout
    except ImportError as error:
        raise AlignSegError(f"{error}. --server needs httpx: pip install -e '.[client]'") from error

    def segment(path: Path, options: Options) -> MaskFiles:
        try:
            result = _with_options(client.segment, path, options)
        except (InvalidImageError, ServerError, ServerTimeout) as error:
            raise ImageFailed(str(error)) from error
        return MaskFiles(render(result, options), ModelId(result.model, result.version))

    try:
        with Client(url, api_key=api_key) as client:
            table = client.classes()
            selected_classes(table, options.classes)
            yield Backend(segment, ModelId(table.model, table.version), REQUESTS_IN_FLIGHT)
    except (ClientError, ValueError) as error:
        raise AlignSegError(str(error)) from error
