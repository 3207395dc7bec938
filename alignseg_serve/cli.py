"""The `alignseg` command. Each subcommand imports what it needs when it runs: serving needs no PyTorch."""

import logging
import os
import signal
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from alignseg_serve import options

if TYPE_CHECKING:
    from service.settings import Settings

app = typer.Typer(
    name="alignseg", no_args_is_help=True, pretty_exceptions_enable=False, help="Segment street scenes with AlignSeg."
)
console = Console(stderr=True, highlight=False)

USAGE_ERROR = 2  # exit code: a missing model, a wrong path, invalid options

_FORWARDED = {"ignore_unknown_options": True, "allow_extra_args": True}  # for commands with a parser of their own


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"alignseg-serve {version('alignseg-serve')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Segment street scenes with AlignSeg."""


@app.command()
def serve(
    model: options.Model = None,
    engine: options.Engine = None,
    host: options.Host = None,
    port: options.Port = None,
    ray: options.RayServe = False,
) -> None:
    """Serve a model over HTTP.

    SIGTERM or Ctrl-C stops accepting requests, completes those that were accepted, and exits with code 0. A second
    Ctrl-C ends at once.
    """
    from service.server import stop_signals

    stop_signals.exit_while_loading()  # before the imports below, which take a second
    from alignseg_serve import ray_commands
    from alignseg_serve.settings import load_settings
    from service.app import create_app
    from service.engines.selection import open_engines
    from service.errors import AlignSegError
    from service.inference.model_reload import snapshot
    from service.model_folder import manifest as manifests
    from service.server import listening
    from service.server.server import Server
    from service.settings import misspelt
    from service.telemetry import logs

    if not hasattr(signal, "SIGHUP"):
        _fail("alignseg serve runs on Linux and macOS. On Windows, use WSL 2 or Docker.")
    try:
        settings = load_settings({"model": model, "engine": engine, "host": host, "port": port}, prefix="--")
    except AlignSegError as error:
        logs.configure(logs.requested_format(os.environ))
        _fail_to_start(error)
    logs.configure(settings.log)
    for line in misspelt(os.environ):
        logging.getLogger("alignseg.settings").warning("%s", line)
    try:  # the model is loaded here, not in the application's lifespan, which would log a traceback
        seen = snapshot(settings.model)
        manifest = manifests.load(settings.model)
        if ray:
            listening.check(settings)
            raise typer.Exit(ray_commands.serve(settings))
        sockets = listening.bind(settings)
        application = create_app(settings, open_engines(settings, manifest), manifest, folder_before=seen)
    except AlignSegError as error:
        _fail_to_start(error)
    raise typer.Exit(Server(application, settings).run_until_stopped(sockets))


@app.command()
def segment(
    sources: options.Sources,
    out: options.MasksOut,
    overlay: options.Overlay = False,
    overwrite: options.Overwrite = False,
    model: options.Model = None,
    engine: options.Engine = None,
    server: options.Server = None,
    api_key: options.ApiKey = None,
    ray: options.RayData = False,
    masks: options.Masks = "png",
) -> None:
    """Segment image files: write an indexed PNG mask for each. Run the same command again to continue.

    Exit codes: 0 done, 1 some images failed, 2 invalid command or unusable model or server, 130 interrupted.
    """
    from alignseg_serve import ray_commands
    from alignseg_serve.segmentation import backends, files
    from service.errors import AlignSegError
    from service.files import exit_on_sigterm

    if ray and (server or overlay or len(sources) != 1):
        _fail("--ray takes exactly one source, without --server and --overlay.")
    if masks != "png" and not ray:
        _fail("--masks rle requires --ray.")
    if server and (model or engine):
        _fail("--server uses the server's model. Remove --model and --engine.")
    settings = _load_settings(model=model, engine=engine)
    try:
        if ray:
            raise typer.Exit(ray_commands.segment(sources[0], out, settings, console, masks=masks, overwrite=overwrite))
        run = partial(files.run, _existing(sources), Path(out), console=console, overlay=overlay, overwrite=overwrite)
        if server is not None:
            with exit_on_sigterm(), backends.server_backend(server, api_key) as backend:
                raise typer.Exit(run(backend))
        with exit_on_sigterm(), backends.lazy_local_backend(settings) as backend:
            raise typer.Exit(run(backend))
    except AlignSegError as error:
        _fail(error)


def _existing(sources: list[str]) -> list[Path]:
    for source in sources:
        if not Path(source).exists():
            raise typer.BadParameter(f"Path '{source}' does not exist.", param_hint="IMAGE_OR_FOLDER...")
    return [Path(source) for source in sources]


@app.command()
def export(
    checkpoint: options.Checkpoint,
    out: options.ModelOut,
    data: options.DataSet = None,
    classes: options.ClassesFile = None,
    frames: options.Frames = None,
    size: options.Sizes = None,
    half: options.Half = False,
    calibration: options.Calibration = None,
    onnx_only: options.OnnxOnly = False,
    inline: options.Inline = False,
) -> None:
    """Convert a checkpoint to a model folder (ONNX and model.json).

    The ONNX model is compared with PyTorch first; nothing is written when they disagree.
    """
    try:
        from model_export import export
        from model_export.checkpoints import checkpoint as checkpoints
        from model_export.onnx_export import parity
        from service.files import exit_on_sigterm
        from service.types import parse_size
    except ImportError as error:
        _fail(f"{error}. Exporting needs PyTorch and ONNX: pip install -e '.[export]'")
    try:
        buckets = tuple(parse_size(text, name="--size") for text in size) if size else None
        with exit_on_sigterm():
            export.run(
                checkpoint,
                out,
                console,
                data=data,
                classes=classes,
                frames=frames,
                buckets=buckets,
                half=half,
                calibration=calibration,
                with_checkpoint=not onnx_only,
                with_inlined=inline,
            )
    except (checkpoints.CheckpointError, parity.ParityError, ValueError, FileNotFoundError) as error:
        _fail(error)


@app.command(add_help_option=False, context_settings=_FORWARDED)
def evaluate(context: typer.Context) -> None:
    """Measure accuracy (mIoU) of a checkpoint, model folder or running server. Options: evaluate --help."""
    try:
        from training import evaluate as command
    except ImportError as error:
        _fail(f"{error}. Evaluation needs PyTorch: pip install -e '.[cpu,train]'")
    raise typer.Exit(command.main(context.args))


@app.command(add_help_option=False, context_settings=_FORWARDED)
def offsets(context: typer.Context) -> None:
    """Draw the offsets learned by AlignFA and AlignCM, for one image. Options: offsets --help."""
    try:
        from training import visualize_offsets as command
    except ImportError as error:
        _fail(f"{error}. Drawing offsets needs PyTorch: pip install -e '.[train]'")
    raise typer.Exit(command.main(context.args))


def _load_settings(**arguments: object) -> "Settings":
    """The environment's settings, with command line options on top."""
    from alignseg_serve.settings import load_settings
    from service.errors import SettingsError

    try:
        return load_settings(arguments, prefix="--")
    except SettingsError as error:
        _fail(error)


def _fail_to_start(reason: object) -> NoReturn:
    """As `_fail`, in the format of the server's log."""
    logging.getLogger("alignseg.server").critical("%s", reason)
    raise typer.Exit(USAGE_ERROR)


def _fail(reason: object) -> NoReturn:
    console.print(f"alignseg: {reason}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(USAGE_ERROR)


def main() -> None:
    """Entry point of the console script `alignseg`."""
    app()
