"""uvicorn with a graceful end: SIGTERM stops admission, accepted work is answered, then the process exits with 0."""

import asyncio
import logging
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from service.admission.controller import AdmissionController
from service.app import create_admin_app
from service.inference.pipeline import Pipeline
from service.server import fast_reject
from service.server.process import freeze_gc_and_trim, limit_malloc_arenas
from service.server.protocol import options
from service.settings import Settings
from service.telemetry import logs

log = logging.getLogger("alignseg.server")
LAST_BYTES_S = 5  # for answers that are made but not yet sent; by then the drain itself is over
STARTUP_FAILED = 3  # what uvicorn's own command exits with
# uvloop (libuv since 1.45) accepts one connection per listening descriptor and turn of the loop. In a flood of new
# connections a turn takes milliseconds, and clients would wait seconds to be told that there is no room.
ACCEPTS_A_TURN = 8
# How long a thread asks for Python's lock before its holder must hand it over. Python's own 5 ms are longer than a
# picture takes on its whole way: an engine that has its result would wait for a turn of the event loop to end.
LOCK_S = 0.0003


class Server(uvicorn.Server):
    """Keeps its sockets open while it drains, so that load balancers and late clients read a 503 instead of a reset."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        door = fast_reject.for_app(app)
        common = options(None if door is None else door.reject, app.state.metrics.record_connection_error)
        super().__init__(uvicorn.Config(app, timeout_graceful_shutdown=LAST_BYTES_S, **common))
        self.exit_code = 0
        self._app = app
        self._settings = settings
        self._admin: AdminPort | None = None
        self._draining_since: float | None = None
        self._drain_told = False

    def run_until_stopped(self) -> int:
        """Serve; returns the process's exit code."""
        try:
            sockets = _bind(self._settings.host, self._settings.port)
        except OSError as error:
            log.error("can't listen on %s port %d: %s", self._settings.host, self._settings.port, error)
            return STARTUP_FAILED
        limit_malloc_arenas()
        sys.setswitchinterval(LOCK_S)
        self.run(sockets)
        return self.exit_code if self.started else STARTUP_FAILED

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the ports, once the model is warm."""
        if self._settings.admin_port is not None:
            self._admin = AdminPort(self._app, self._settings)
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._look_for_a_model)
        await super().startup(sockets)
        freeze_gc_and_trim()
        for host, port, *_ in {sock.getsockname() for sock in sockets or ()}:
            log.info("running on http://%s:%d (Ctrl-C to quit)", f"[{host}]" if ":" in host else host, port)
        if self._admin is not None:
            await self._admin.open()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the ports; health is told until the last answer is out."""
        await super().shutdown(sockets)
        if self._admin is not None:
            await self._admin.close()

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
        logs.flush()
        pipeline = self._pipeline
        if pipeline is not None and pipeline.health.lost:
            log.error("the engine is lost: ending the process, so that it can be started anew")
            pipeline.stop_admitting("the engine is lost")
            self.exit_code, self.should_exit = 1, True
        if pipeline is not None and self._draining_since is not None:
            has_ended = self._drain(pipeline.admission, time.monotonic() - self._draining_since)
            self.should_exit = self.should_exit or has_ended
        if self._admin is not None:
            await self._admin.on_tick(counter)
        return await super().on_tick(counter)

    def _drain(self, admission: AdmissionController, for_s: float) -> bool:
        """Whether nobody is left to be waited for, or it took too long. Told here: a signal's handler must not log."""
        most_s = self._settings.drain_timeout_s
        if not self._drain_told:
            self._drain_told = True
            until = time.strftime("%H:%M:%S UTC", time.gmtime(time.time() + most_s - for_s))
            log.info("draining: requests in flight: %d; waiting for them until %s", admission.in_flight, until)
        admission.preempt_stalled()
        left = admission.in_flight
        if left and for_s <= most_s:
            return False
        if left:
            self.exit_code = 1
            log.warning("drained for %.1f s (ALIGNSEG_DRAIN_TIMEOUT_S); requests that are cut off: %d", for_s, left)
        else:
            log.info("drained in %.1f s: all requests have their answers", for_s)
        return True

    def _look_for_a_model(self) -> None:
        watch = getattr(self._app.state, "watch", None)
        if watch is not None:
            watch.check_now()

    @property
    def _pipeline(self) -> Pipeline | None:
        return getattr(self._app.state, "pipeline", None)


def _bind(host: str, port: int) -> list[socket.socket]:
    """One address, bound but closed until the model is warm, under several descriptors: see ACCEPTS_A_TURN."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
    return [bound, *(bound.dup() for _ in range(ACCEPTS_A_TURN - 1))]


class AdminPort:
    """A second port in the same event loop, for health and metrics."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        common: dict[str, Any] = {"lifespan": "off", "timeout_graceful_shutdown": LAST_BYTES_S}
        common |= options(count=app.state.metrics.record_connection_error)
        port = settings.admin_port or 0
        self._server = uvicorn.Server(uvicorn.Config(create_admin_app(app), host=settings.host, port=port, **common))

    async def open(self) -> None:
        """Listen."""
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        log.info("health and metrics have a port of their own:")
        await self._server.startup()
        await self.on_tick(0)

    async def on_tick(self, counter: int) -> None:
        """Ten times a second, from 0: makes the Date header."""
        await self._server.on_tick(counter)

    async def close(self) -> None:
        """Listen no more."""
        await self._server.shutdown()
