"""`alignseg serve --ray`: serve on this machine's Ray cluster until SIGTERM or SIGINT."""

import logging
import signal
import socket
import threading
import time
from typing import Any, Final

from ray import serve

from service.engines.selection import open_engines
from service.inference.lifespan import EngineFactory
from service.ray_serve import cluster
from service.ray_serve.application import NAME, RayServeConfig, application
from service.settings import Settings
from service.telemetry import logs

log = logging.getLogger("alignseg.server")
_POLL_S: Final = 0.05


def run_until_stopped(settings: Settings, engine_factory: EngineFactory = open_engines) -> int:
    """Serve with one engine per GPU; return the exit code, 1 if accepted requests were not completed in time."""
    stop = threading.Event()
    logging.getLogger("ray").setLevel(logging.WARNING)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    port = settings.port or _free_port(settings.host)
    settings = settings.model_copy(update={"log": logs.resolved(settings.log)})  # replicas have no terminal
    with cluster.connected():
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, lambda *_: stop.set())  # after ray.init, which sets its own handlers
        serve.start(http_options={"host": settings.host, "port": port})
        try:
            config = RayServeConfig(engines=max(1, cluster.gpus()))
            ingress = serve.run(application(settings, config, engine_factory), name=NAME, route_prefix="/")
            log.info("running on http://%s:%d (Ctrl-C to quit)", settings.host, port)
            stop.wait()
            return 0 if _drain(ingress, settings.drain_timeout_s) else 1
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


def _drain(ingress: Any, timeout_s: float) -> bool:
    """Reject new requests and complete the accepted ones; return False after `timeout_s`."""
    until = time.monotonic() + timeout_s
    ingress.stop_admitting.remote().result()
    while ingress.in_flight.remote().result():
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_S)
    time.sleep(2 * _POLL_S)  # the last responses are still passing through the proxy
    return True
