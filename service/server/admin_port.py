"""A second port for health and metrics, in the same event loop."""

import logging
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from service.app import create_admin_app
from service.server.protocol import uvicorn_options
from service.settings import Settings

log = logging.getLogger("alignseg.server")
FLUSH_TIMEOUT_S: Final = 5  # for responses that are made but not sent; the drain itself is over by then


class AdminPort:
    """Serves create_admin_app(app) on ALIGNSEG_ADMIN_PORT; 0 or None lets the system choose the port."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        options: dict[str, Any] = {"lifespan": "off", "timeout_graceful_shutdown": FLUSH_TIMEOUT_S}
        options |= uvicorn_options(
            on_connection_error=app.state.metrics.record_connection_error, keep_alive_s=settings.keep_alive_s
        )
        port = settings.admin_port or 0
        self._server = uvicorn.Server(uvicorn.Config(create_admin_app(app), host=settings.host, port=port, **options))

    async def open(self) -> None:
        """Start listening."""
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        log.info("health and metrics are on a separate port:")
        await self._server.startup()
        await self.on_tick(0)

    async def on_tick(self, counter: int) -> None:
        """Update the Date header. Call it ten times a second, with counter from 0."""
        await self._server.on_tick(counter)

    async def close(self) -> None:
        """Stop listening."""
        await self._server.shutdown()
