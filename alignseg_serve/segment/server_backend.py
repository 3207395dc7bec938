"""A segmenter that is a server: a few requests in flight, refused ones sent again when the server says so."""

from pathlib import Path
from typing import Final

from alignseg_serve.client import Client
from alignseg_serve.client.errors import InvalidImageError, ServerError, ServerTimeout
from alignseg_serve.segment.files import Masks, PictureFailed, Segmenter

IN_FLIGHT: Final = 4  # keeps a server's decoder, engine and encoder busy while bytes travel


def remotely(client: Client) -> Segmenter:
    """Segment with the server of `client`. A server that is gone, or refuses us, ends the run with ClientError."""

    def segment(picture: Path, overlay: bool) -> Masks:
        try:
            found = client.segment(picture, overlay=overlay)
        except (InvalidImageError, ServerError, ServerTimeout) as error:
            raise PictureFailed(str(error)) from error
        return Masks(found.mask_png, found.overlay_png)

    return segment
