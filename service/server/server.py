"""uvicorn with a graceful shutdown: SIGTERM stops admission, accepted requests are answered, the exit code is 0."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Generator
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from service.admission.controller import AdmissionController
from service.errors import SettingsError
from service.inference.pipeline import Pipeline
from service.observers import isolated
from service.server import fast_reject, listening, stop_signals
from service.server.admin_port import FLUSH_TIMEOUT_S, AdminPort
from service.server.memory_trim import MemoryTrimmer
from service.server.process import freeze_gc_and_trim, limit_malloc_arenas, shorten_switch_interval
from service.server.protocol import uvicorn_options
from service.settings import Settings
from service.telemetry import logs

log = logging.getLogger("alignseg.server")
STARTUP_FAILED: Final = 3  # the exit code of uvicorn's own command


class Server(uvicorn.Server):
    """Keeps its sockets open while it drains, so that load balancers and late clients get a 503 instead of a reset."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        rejection = fast_reject.for_app(app)
        reject = None if rejection is None else rejection.reject
        options = uvicorn_options(reject, app.state.metrics.record_connection_error, settings.keep_alive_s)
        super().__init__(uvicorn.Config(app, timeout_graceful_shutdown=FLUSH_TIMEOUT_S, **options))
        self.exit_code = 0
        self._app = app
        self._settings = settings
        self._admin: AdminPort | None = None
        self._interrupts = 0
        self._draining_since: float | None = None
        self._drain_logged = False
        self._trimmer = MemoryTrimmer()

    def run_until_stopped(self, sockets: list[socket.socket] | None = None) -> int:
        """Serve until a signal; returns the process's exit code.

        sockets: see listening.bind; None: of the settings.
        """
        try:
            sockets = sockets or listening.bind(self._settings)
        except SettingsError as error:
            log.error("%s", error)
            return STARTUP_FAILED
        limit_malloc_arenas()
        shorten_switch_interval()
        self.run(sockets)
        if threading.current_thread() is threading.main_thread():
            stop_signals.ignore_while_ending()
        return self.exit_code if self.started else STARTUP_FAILED

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the ports, once the model is warm."""
        if self._settings.admin_port is not None:
            self._admin = AdminPort(self._app, self._settings)
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._check_for_new_model)
        try:
            await super().startup(sockets)
        except OSError as error:  # another process bound the port at the same time, and was the first to listen
            log.error("%s", listening.not_listening(self._settings.host, self._settings.port, error))
            await self.lifespan.shutdown()
            raise SystemExit(STARTUP_FAILED) from None
        freeze_gc_and_trim()
        for host, port, *_ in {sock.getsockname() for sock in sockets or ()}:
            log.info("running on http://%s:%d (Ctrl-C to quit)", f"[{host}]" if ":" in host else host, port)
        if self._admin is not None:
            await self._admin.open()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the ports; the admin port last, so that health is served until the last response is sent."""
        await super().shutdown(sockets)
        if self._admin is not None:
            await self._admin.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain, once, however many signals come. A second SIGINT ends the process at once."""
        self._interrupts += sig == signal.SIGINT
        if self._interrupts > 1:
            os._exit(
                stop_signals.INTERRUPTED
            )  # not an exception: what it interrupted might catch it, or wait for the engine
        pipeline = self._pipeline
        if pipeline is None:
            self.should_exit = True  # as soon as the model is warm: nothing was accepted yet
        elif self._draining_since is None:
            self._draining_since = time.monotonic()
            pipeline.stop_admitting()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals until the process ends; uvicorn would restore the defaults before that."""
        if threading.current_thread() is threading.main_thread():
            for stop_signal in stop_signals.STOP_SIGNALS:
                signal.signal(stop_signal, self.handle_exit)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until `startup`: the model is being loaded
        yield

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second. Returns whether to exit."""
        with isolated:
            logs.flush()
        pipeline = self._pipeline
        if pipeline is not None and pipeline.health.lost:
            log.error("the engine is lost: ending the process, so that it can be restarted")
            pipeline.stop_admitting("the engine is lost")
            self.exit_code, self.should_exit = 1, True
        if pipeline is not None and self._draining_since is not None:
            has_ended = self._drain(pipeline.admission, time.monotonic() - self._draining_since)
            self.should_exit = self.should_exit or has_ended
        if pipeline is not None:
            self._trimmer.on_tick(pipeline.pixels)
        if self._admin is not None:
            await self._admin.on_tick(counter)
        return await super().on_tick(counter)

    def _drain(self, admission: AdmissionController, draining_s: float) -> bool:
        """Returns whether all requests are answered or the time is up. Logs here: a signal handler must not log."""
        timeout_s = self._settings.drain_timeout_s
        if not self._drain_logged:
            self._drain_logged = True
            until = time.strftime("%H:%M:%S UTC", time.gmtime(time.time() + timeout_s - draining_s))
            log.info("draining: %s in flight, at most until %s", _requests(admission.in_flight), until)
        admission.preempt_stalled()
        if admission.in_flight and draining_s <= timeout_s:
            return False
        if admission.in_flight:
            self.exit_code = 1
            cut_off = _requests(admission.in_flight)
            log.warning(
                "drain timed out after %.1f s (ALIGNSEG_DRAIN_TIMEOUT_S): %s not completed", draining_s, cut_off
            )
        else:
            log.info("drained in %.1f s: all requests are completed", draining_s)
        return True

    def _check_for_new_model(self) -> None:
        watcher = getattr(self._app.state, "model_watcher", None)
        if watcher is not None:
            watcher.check_now()

    @property
    def _pipeline(self) -> Pipeline | None:
        return getattr(self._app.state, "pipeline", None)


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count} requests"
