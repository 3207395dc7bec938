"""The commands' --ray: imports Ray when it is asked for, and says what to install where it is missing."""

from typing import Final, Literal

from rich.console import Console

from service.errors import AlignSegError, EngineUnavailable
from service.settings import Settings

Masks = Literal["png", "rle"]  # see bulk.stages, which needs Arrow
_INSTALL: Final = "--ray needs Ray: pip install -e '.[ray]'"


def serve(settings: Settings) -> int:
    """Until a signal comes; returns the exit code. Raises AlignSegError."""
    try:
        from service.ray_serve.run import run_until_stopped
    except ImportError as error:
        raise EngineUnavailable(f"{error}. {_INSTALL}") from error
    return run_until_stopped(settings)


def segment(source: str, out: str, settings: Settings, console: Console, *, masks: Masks, overwrite: bool) -> int:
    """One job. Returns the exit code. Raises AlignSegError."""
    try:
        from alignseg_serve.ray_job.job import run
    except ImportError as error:
        raise AlignSegError(f"{error}. {_INSTALL}") from error
    return run(source, out, settings, console, masks=masks, overwrite=overwrite)
