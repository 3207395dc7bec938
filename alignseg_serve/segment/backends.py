"""`alignseg segment` without Ray: files on disk, by a model here or by a server. Imports what the choice needs."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from alignseg_serve.segment.files import run
from service.errors import AlignSegError
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Files:
    """What segment_files.run is asked for."""

    sources: list[Path]
    out: Path
    overlay: bool
    overwrite: bool


def model(files: Files, settings: Settings, console: Console) -> int:
    """By the settings' model and engine; returns the exit code. Raises AlignSegError."""
    from alignseg_serve.segment.local_backend import locally
    from service.engines.selection import open_engine
    from service.model_folder import manifest as manifests

    manifest = manifests.load(settings.model)
    segmenter = locally(manifest, open_engine(settings, manifest), settings.max_pixels)
    return run(files.sources, files.out, segmenter, console, overlay=files.overlay, overwrite=files.overwrite)


def server(files: Files, url: str, api_key: str | None, console: Console) -> int:
    """By the server at `url`; returns the exit code. Raises AlignSegError."""
    try:
        from alignseg_serve.client import Client, ClientError
        from alignseg_serve.segment.server_backend import IN_FLIGHT, remotely
    except ImportError as error:
        raise AlignSegError(f"{error}. --server needs httpx: pip install -e '.[client]'") from error
    try:
        with Client(url, api_key=api_key) as client:
            return run(
                files.sources, files.out, remotely(client), console,
                overlay=files.overlay, overwrite=files.overwrite, in_flight=IN_FLIGHT,
            )  # fmt: skip
    except (ClientError, ValueError) as error:
        raise AlignSegError(str(error)) from error
