"""The `alignseg` command. Commands import what they need when they run: serving needs no torch, exporting no server."""

import logging
import os
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console

app = typer.Typer(
    name="alignseg", no_args_is_help=True, pretty_exceptions_enable=False, help="Segment street scenes with AlignSeg."
)
console = Console(stderr=True, highlight=False)

UNUSABLE = 2  # the command can't be carried out at all: a missing model, a wrong path

Model = Annotated[
    Path | None, typer.Option(help="Folder with a model.json.  [env: ALIGNSEG_MODEL; default: weights/alignseg-lite]")
]
Engine = Annotated[
    str | None,
    typer.Option(
        help="auto, tensorrt, onnxruntime-cuda, openvino-int8, openvino-bf16, openvino-cpu or onnxruntime-cpu.  "
        "[env: ALIGNSEG_ENGINE; default: auto]"
    ),
]

_PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True}  # to a command that reads its own flags


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"alignseg-serve {version('alignseg-serve')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", help="Say the version.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Segment street scenes with AlignSeg."""


@app.command()
def serve(
    model: Model = None,
    engine: Engine = None,
    host: Annotated[str | None, typer.Option(help="[env: ALIGNSEG_HOST; default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="[env: ALIGNSEG_PORT; default: 8000]")] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Through Ray Serve: on all GPUs of a cluster, see docs/scale.md.")
    ] = False,
) -> None:
    """Serve a model over HTTP. SIGTERM or Ctrl-C answers what was accepted, then exits with 0."""
    from alignseg_serve import with_ray
    from service import logs
    from service import manifest as manifests
    from service.app import create_app
    from service.engines.select import open_engines
    from service.errors import AlignSegError
    from service.server import Server
    from service.settings import misspelt
    from service.swap import look

    settings = _settings(model=model, engine=engine, host=host, port=port)
    logs.configure(settings.log)
    for line in misspelt(os.environ):
        logging.getLogger("alignseg.settings").warning("%s", line)
    try:  # here rather than in the lifespan: a missing model deserves a sentence, not a traceback
        seen = look(settings.model)
        manifest = manifests.load(settings.model)
        if ray:
            raise typer.Exit(with_ray.serve(settings))
        served = create_app(settings, open_engines(settings, manifest), manifest, seen=seen)
    except AlignSegError as error:
        _give_up(error)
    raise typer.Exit(Server(served, settings).run_until_stopped())


@app.command()
def segment(
    sources: Annotated[list[str], typer.Argument(metavar="PICTURE_OR_FOLDER...", help="Pictures, or folders of them.")],
    out: Annotated[
        str,
        typer.Option("--out", "-o", help="Folder for the masks; subfolders are kept. For one picture, a .png as well."),
    ],
    overlay: Annotated[bool, typer.Option("--overlay", help="Write <name>.overlay.png as well.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do finished pictures again.")] = False,
    model: Model = None,
    engine: Engine = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Let this server do it, e.g. http://gpu:8000, instead of a model here."),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="ALIGNSEG_API_KEY", help="For a server that wants one.", show_default=False)
    ] = None,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Through Ray Data, for millions: a folder or Parquet, here or on s3://, gs://; see docs/scale.md.",
        ),
    ] = False,
    masks: Annotated[
        Literal["png", "rle"], typer.Option(help="With --ray: PNG files, or COCO RLE in the Parquet of the results.")
    ] = "png",
) -> None:
    """Write an indexed PNG mask for each picture. Run it again to go on where it stopped.

    Exit codes: 0 all done, 1 some pictures could not be read (listed at the end), 2 nothing can be done,
    130 interrupted.
    """
    from alignseg_serve import segment_by, with_ray
    from service.errors import AlignSegError

    if ray and (server or overlay or len(sources) != 1):
        _give_up("--ray takes one SOURCE, and neither --server nor --overlay.")
    if masks != "png" and not ray:
        _give_up("--masks rle needs --ray.")
    if server and (model or engine):
        _give_up("--server brings its own model: leave --model and --engine out.")
    settings = _settings(model=model, engine=engine)
    try:
        if ray:
            raise typer.Exit(with_ray.segment(sources[0], out, settings, console, masks=masks, overwrite=overwrite))
        files = segment_by.Files(_existing(sources), Path(out), overlay=overlay, overwrite=overwrite)
        if server is None:
            raise typer.Exit(segment_by.model(files, settings, console))
        raise typer.Exit(segment_by.server(files, server, api_key, console))
    except AlignSegError as error:
        _give_up(error)


def _existing(sources: list[str]) -> list[Path]:
    for source in sources:
        if not Path(source).exists():
            raise typer.BadParameter(f"Path '{source}' does not exist.", param_hint="PICTURE_OR_FOLDER...")
    return [Path(source) for source in sources]


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Own .safetensors, or a published .pth state dict.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model folder to write, e.g. weights/my-model.")],
    data: Annotated[
        str | None, typer.Option(help="camvid, cityscapes or ade20k, where the checkpoint does not tell.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help='JSON of own classes: [{"name": ..., "color": \\[r, g, b]}, ...].')
    ] = None,
    frames: Annotated[
        Path | None, typer.Option(help="Picture or folder to compare with PyTorch on. Default: the demo scene.")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            help="HEIGHTxWIDTH to serve at, best one more than a multiple of 16; repeat for several. "
            "Default: four shapes for pictures of about 360x480."
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store weights as float16; computing stays float32.")] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Typical pictures to measure int8 ranges on, for OpenVINO; without, bf16 is served."
        ),
    ] = None,
    onnx_only: Annotated[
        bool, typer.Option("--onnx-only", help="Weights in model.onnx alone, EfficientNets'.")
    ] = False,
) -> None:
    """Turn a checkpoint into a model folder: ONNX and manifest, compared with PyTorch before anything is written."""
    try:
        from model_export import checkpoint as checkpoints
        from model_export import export_command, parity
    except ImportError as error:
        _give_up(f"{error}. Exporting needs PyTorch and ONNX: pip install -e '.[export]'")
    try:
        buckets = tuple(_size(text) for text in size) if size else export_command.DEFAULT_BUCKETS
        export_command.run(
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
        )
    except (checkpoints.CheckpointError, parity.ParityError, ValueError, FileNotFoundError) as error:
        _give_up(error)


@app.command(add_help_option=False, context_settings=_PASSED_ON)
def evaluate(context: typer.Context) -> None:
    """Measure masks against labels: a checkpoint's, a model folder's or a running server's. See evaluate --help."""
    try:
        from training import evaluate as measuring
    except ImportError as error:
        _give_up(f"{error}. Measuring needs PyTorch: pip install -e '.[cpu,train]'")
    raise typer.Exit(measuring.main(context.args))


@app.command(add_help_option=False, context_settings=_PASSED_ON)
def offsets(context: typer.Context) -> None:
    """Draw the offsets that AlignFA and AlignCM have learned, for one picture. See offsets --help."""
    try:
        from training import offsets as drawing
    except ImportError as error:
        _give_up(f"{error}. Drawing offsets needs PyTorch: pip install -e '.[train]'")
    raise typer.Exit(drawing.main(context.args))


def _size(text: str) -> tuple[int, int]:
    height, separator, width = text.partition("x")
    if not (separator and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ValueError(f"--size: got {text!r}, expected HEIGHTxWIDTH, such as 360x480")
    return int(height), int(width)


def _settings(**given: Any) -> Any:
    """The environment's settings, with what was typed on top."""
    from pydantic import ValidationError

    from service.settings import Settings, variable

    typed = {name: value for name, value in given.items() if value is not None}
    try:
        return Settings(**typed)
    except ValidationError as error:
        found = [(str(e["loc"][0]) if e["loc"] else "", e) for e in error.errors()]
        _give_up(
            "; ".join(
                f"{'--' + name if name in typed else variable(name)}: {e['msg']}, got {e['input']!r}"
                for name, e in found
            )
        )


def _give_up(reason: object) -> NoReturn:
    console.print(f"alignseg: {reason}", style="red", markup=False)
    raise typer.Exit(UNUSABLE)


def main() -> None:
    """Console script."""
    app()
