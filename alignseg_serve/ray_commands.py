"""The --ray option: imports Ray only when it is used, and names the package to install when it is missing."""

from typing import Final

from rich.console import Console

from alignseg_serve.ray_job import MaskFormat
from service.errors import AlignSegError, EngineUnavailable
from service.settings import Settings

_INSTALL: Final = "--ray needs Ray: pip install -e '.[ray]'"


def serve(settings: Settings) -> int:
    """Serve until a signal arrives. Returns the exit code. Raises AlignSegError."""
    try:
        from service.ray_serve.run import run_until_stopped
    except ImportError as error:
        raise EngineUnavailable(f"{error}. {_INSTALL}") from error
    return run_until_stopped(settings)


def segment(source: str, out: str, settings: Settings, console: Console, *, masks: MaskFormat, overwrite: bool) -> int:
    """Run one job of Ray Data. Returns the exit code. Raises AlignSegError."""
    try:
        from alignseg_serve.ray_job.job import run
    except ImportError as error:
        raise AlignSegError(f"{error}. {_INSTALL}") from error
    return run(source, out, settings, console, masks=masks, overwrite=overwrite)
