"""`alignseg label-studio`."""

from typing import Annotated

import typer

from alignseg_serve import options
from service.errors import AlignSegError


def label_studio(
    label_studio: Annotated[
        str, typer.Option("--label-studio", metavar="URL", help="Label Studio, such as http://localhost:8080.")
    ],
    token: Annotated[
        str,
        typer.Option(
            metavar="TOKEN",
            envvar="LABEL_STUDIO_API_KEY",
            show_envvar=False,
            help="Token of a Label Studio user who may read the images.  \\[env: LABEL_STUDIO_API_KEY]",
        ),
    ],
    server: Annotated[str, typer.Option(metavar="URL", help="The AlignSeg server.")] = "http://localhost:8000",
    api_key: options.ApiKey = None,
    classes: options.Classes = None,
    tile: options.Tile = "auto",
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="NUMBER", help="TCP port to listen on.")] = 9090,
) -> None:
    """Pre-label images in Label Studio, as its ML backend, with the masks of a running server.

    Images are read from that Label Studio only, with its token. See docs/annotation.md.
    """
    try:
        run(label_studio, token, server, api_key, classes=classes, tile=tile, host=host, port=port)
    except AlignSegError as error:
        typer.secho(f"alignseg: {error}", fg="red", err=True)
        raise typer.Exit(2) from None


def run(
    label_studio: str,
    token: str,
    server: str,
    api_key: str | None,
    *,
    classes: str | None,
    tile: str,
    host: str,
    port: int,
) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises AlignSegError, also when httpx is missing or the server is unusable."""
    try:
        from alignseg_serve.annotation import label_studio_app
        from alignseg_serve.annotation.label_studio_images import LabelStudioImages
        from alignseg_serve.class_selection import parse_classes
        from alignseg_serve.client import Client, ClientError
    except ImportError as error:
        raise AlignSegError(f"{error}. label-studio needs httpx: pip install -e '.[client]'") from error
    images = LabelStudioImages(label_studio, token)
    try:
        with Client(server, api_key=api_key) as client:
            label_studio_app.run(client, images, host=host, port=port, classes=parse_classes(classes), tile=tile)
    except (ClientError, ValueError) as error:
        raise AlignSegError(str(error)) from error
    finally:
        images.close()
