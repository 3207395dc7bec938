"""An ML backend of Label Studio: /health, /setup, /predict and /webhook, in a process of its own."""

import json
import logging
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from alignseg_serve.annotation.label_studio import Predictor
from alignseg_serve.annotation.label_studio_images import LabelStudioImages
from alignseg_serve.client import Client, ClientError
from service.errors import AlignSegError

_logger: Final = logging.getLogger("alignseg.label_studio")
_MAX_BODY_BYTES: Final = 64 * 2**20


def create_app(predictor: Predictor) -> Starlette:
    """The application. Errors have the field `error`, which Label Studio logs or shows."""

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "UP", "model_class": "alignseg", "model_version": predictor.model_version})

    async def setup(_: Request) -> JSONResponse:
        return JSONResponse({"model_version": predictor.model_version})

    async def ignore(_: Request) -> JSONResponse:  # Label Studio reports every annotation to its backends
        return JSONResponse({})

    async def predict(request: Request) -> JSONResponse:
        try:
            tasks, config = _parse(await _body(request))
            results = await run_in_threadpool(predictor.predict, tasks, config)
        except ClientError as error:
            return _error(503, error)
        except AlignSegError as error:
            return _error(422, error)
        for failure in (result["error"] for result in results if "error" in result):
            _logger.warning("%s", failure)
        return JSONResponse({"results": results})

    return Starlette(
        routes=[
            Route("/", health),
            Route("/health", health),
            Route("/setup", setup, methods=["POST"]),
            Route("/predict", predict, methods=["POST"]),
            Route("/webhook", ignore, methods=["POST"]),
        ]
    )


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise AlignSegError(f"The request has more than {_MAX_BODY_BYTES:,} bytes. Send fewer tasks at a time.")
    return bytes(body)


def _parse(body: bytes) -> tuple[list[dict[str, Any]], str]:
    try:
        request = json.loads(body)
        tasks, config = request["tasks"], request["label_config"]
    except (ValueError, TypeError, KeyError) as error:
        raise AlignSegError(
            f"Got a request without tasks and label_config ({error!r}); expected Label Studio's."
        ) from error
    if not isinstance(config, str) or not isinstance(tasks, list) or not all(_is_task(task) for task in tasks):
        raise AlignSegError('Got tasks or label_config of another type; expected [{"id": ..., "data": {...}}] and XML.')
    return tasks, config


def _is_task(task: object) -> bool:
    return isinstance(task, dict) and isinstance(task.get("data"), dict)


def _error(status: int, error: Exception) -> JSONResponse:
    _logger.warning("%s", error)
    return JSONResponse({"error": str(error)}, status)


def run(
    client: Client, images: LabelStudioImages, *, host: str, port: int, classes: tuple[str, ...], tile: str
) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises what Predictor raises."""
    app = create_app(Predictor(client, images, classes, tile))
    uvicorn.run(app, host=host, port=port, log_level="info")
