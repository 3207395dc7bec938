"""What segments the files of `alignseg segment`: the model in this process, or a server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alignseg_serve.segmentation.segmenter import Segmenter
from service.errors import AlignSegError, EngineError, RequestError

REQUESTS_IN_FLIGHT: Final = 4  # keep a server's decoder, engine and encoder busy while other bodies are in transit


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """The PNG files of one image. overlay: None unless requested."""

    mask: bytes
    overlay: bytes | None


class ImageFailed(Exception):
    """One image can't be segmented; others can. Any other exception ends the run."""


@dataclass(frozen=True, slots=True)
class Backend:
    """segment: (path of an image, whether to draw an overlay) -> its files; raises ImageFailed.

    in_flight: number of images to segment at once, each in a thread; with 1, no thread is started.
    """

    segment: Callable[[Path, bool], MaskFiles]
    in_flight: int = 1


def local_backend(segmenter: Segmenter) -> Backend:
    """Segment in this process."""

    def segment(path: Path, overlay: bool) -> MaskFiles:
        try:
            result = segmenter.segment(path, overlay=overlay)
            return MaskFiles(result.mask_png, result.overlay_png if overlay else None)
        except (RequestError, EngineError) as error:
            raise ImageFailed(str(error)) from error

    return Backend(segment)


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
        return MaskFiles(result.mask_png, result.overlay_png)

    try:
        with Client(url, api_key=api_key) as client:
            yield Backend(segment, REQUESTS_IN_FLIGHT)
    except (ClientError, ValueError) as error:
        raise AlignSegError(str(error)) from error
