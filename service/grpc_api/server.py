"""The port: open while the application runs, in the same event loop and with the same pipeline as HTTP."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio
from fastapi import FastAPI

from service.grpc_api import description
from service.grpc_api.calls import SERVICE, Handler, Observers
from service.grpc_api.inference import model_infer
from service.http import auth
from service.settings import Settings

log = logging.getLogger("alignseg.grpc")
_OTHER_BYTES: Final = 64 * 1024  # of a message besides its images
_FLUSH_S: Final = 5  # for responses that are made but not sent; the drain itself is over by then
_NO_COMPRESSION: Final = 1  # a set with `identity` alone: gRPC does not limit what a message decompresses to
_PROBES: Final = {
    "ServerLive": description.server_live,
    "ServerReady": description.server_ready,
    "ModelReady": description.model_ready,
}


@asynccontextmanager
async def serving(app: FastAPI, settings: Settings) -> AsyncGenerator[int, None]:
    """Open ALIGNSEG_GRPC_PORT until the context ends; yields its number. Raises OSError if it is in use."""
    server = grpc.aio.server(options=_options(settings))
    server.add_generic_rpc_handlers((_handlers(app, settings),))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        port = server.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {host} port {settings.grpc_port} for gRPC: {error}") from None
    await server.start()
    log.info("gRPC (Open Inference Protocol) on %s:%d", host, port)
    try:
        yield port
    finally:
        await server.stop(_FLUSH_S)


def _options(settings: Settings) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", settings.max_body_bytes + _OTHER_BYTES),
        ("grpc.max_send_message_length", -1),  # limited by the pixels of a request
        ("grpc.compression_enabled_algorithms_bitset", _NO_COMPRESSION),
        ("grpc.max_concurrent_streams", 2 * settings.max_in_flight),  # of one connection
        ("grpc.max_connection_idle_ms", round(settings.keep_alive_s * 1e3)),
        ("grpc.so_reuseport", 0),  # otherwise a port in use is no error
    ]


def _handlers(app: FastAPI, settings: Settings) -> grpc.GenericRpcHandler:
    state = app.state
    observers = Observers(state.metrics, state.access_log, state.tracer)
    responders = {**_PROBES, **description.descriptions(state.metrics), "ModelInfer": model_infer}
    responders |= dict.fromkeys(("RepositoryModelLoad", "RepositoryModelUnload"), description.model_control)
    keys = auth.load(settings)
    methods = {
        name: grpc.stream_unary_rpc_method_handler(
            Handler(name, respond, state.pipeline, observers, keys, needs_key=name not in _PROBES).handle
        )
        for name, respond in responders.items()
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)
