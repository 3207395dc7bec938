"""uvicorn with a graceful end: SIGTERM stops admission, accepted work is answered, then the process exits with 0."""

import logging
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.pipeline import Pipeline
from service.settings import Settings

log = logging.getLogger("alignseg.server")
LAST_BYTES_S = 5  # for answers that are made but not yet sent; by then the drain itself is over
STARTUP_FAILED = 3  # what uvicorn's own command exits with


class Server(uvicorn.Server):
    """Keeps its sockets open while it drains, so that load balancers and late clients read a 503 instead of a reset."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(app, host=settings.host, port=settings.port, timeout_graceful_shutdown=LAST_BYTES_S)
        )
        self.exit_code = 0
        self._app = app
        self._drain_timeout_s = settings.drain_timeout_s
        self._draining_since: float | None = None

    def run_until_stopped(self) -> int:
        """Serve; returns the process's exit code."""
        self.run()
        return self.exit_code if self.started else STARTUP_FAILED

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain. Second: leave now."""
        pipeline = self._pipeline
        if pipeline is None or self._draining_since is not None:
            self.should_exit = self.force_exit = True
            return
        self._draining_since = time.monotonic()
        pipeline.stop_admitting()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: is there a reason to leave?"""
        pipeline = self._pipeline
        if pipeline is not None and pipeline.lost:
            log.error("the engine is lost: ending the process, so that it can be started anew")
            self.exit_code, self.should_exit = 1, True
        if pipeline is not None and self._draining_since is not None:
            late = time.monotonic() - self._draining_since > self._drain_timeout_s
            self.should_exit = self.should_exit or late or pipeline.admission.in_flight == 0
        return await super().on_tick(counter)

    @property
    def _pipeline(self) -> Pipeline | None:
        return getattr(self._app.state, "pipeline", None)
