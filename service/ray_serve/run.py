"""`alignseg serve --ray`: serve on this machine's Ray cluster until SIGTERM or SIGINT."""

import logging
import signal
import socket
import threading
import time
from types import FrameType
from typing import Any, Final

from ray import serve

from service.engines.selection import open_engines
from service.inference.lifespan import EngineFactory
from service.ray_serve import cluster
from service.ray_serve.application import NAME, RayServeConfig, application
from service.server.stop_signals import INTERRUPTED, STOP_SIGNALS
from service.settings import Settings
from service.telemetry import logs

log = logging.getLogger("alignseg.server")
_POLL_S: Final = 0.05


class _Signals:
    """SIGTERM and SIGINT ask for a drain, once; a second SIGINT ends the drain."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.stop_now = threading.Event()
        self._interrupts = 0

    def handle(self) -> None:
        """Install the handlers. Call it in the main thread."""
        for sig in STOP_SIGNALS:
            signal.signal(sig, self._on_signal)

    def _on_signal(self, sig: int, _frame: FrameType | None) -> None:
        self._interrupts += sig == signal.SIGINT
        self.stop.set()
        if self._interrupts > 1:
            self.stop_now.set()


def run_until_stopped(settings: Settings, engine_factory: EngineFactory = open_engines) -> int:
    """Serve with one engine per GPU.

    Returns the exit code: 1 if accepted requests were not completed in time, 130 after a second SIGINT.
    """
    signals = _Signals()
    logging.getLogger("ray").setLevel(logging.WARNING)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    port = settings.port or _free_port(settings.host)
    settings = settings.model_copy(update={"log": logs.resolved(settings.log)})  # replicas have no terminal
    with cluster.connected():
        signals.handle()  # after ray.init, which sets its own handlers
        serve.start(http_options={"host": settings.host, "port": port})
        try:
            config = RayServeConfig(engines=max(1, cluster.gpus()))
            ingress = serve.run(application(settings, config, engine_factory), name=NAME, route_prefix="/")
            log.info("running on http://%s:%d (Ctrl-C to quit)", settings.host, port)
            signals.stop.wait()
            return _drain(ingress, settings.drain_timeout_s, signals.stop_now)
        finally:
            _delete_application()


def _delete_application() -> None:
    """Shut Ray Serve down only if no other application uses it."""
    serve.delete(NAME)
    if not serve.status().applications:
        serve.shutdown()


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


def _drain(ingress: Any, timeout_s: float, stop_now: threading.Event) -> int:
    """Reject new requests and complete the accepted ones. Returns the exit code."""
    until = time.monotonic() + timeout_s
    ingress.stop_admitting.remote().result()
    while ingress.in_flight.remote().result():
        if time.monotonic() > until:
            return 1
        if stop_now.wait(_POLL_S):
            return INTERRUPTED
    time.sleep(2 * _POLL_S)  # the last responses are still passing through the proxy
    return 0
