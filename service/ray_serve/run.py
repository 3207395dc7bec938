"""`alignseg serve --ray`: the fleet on one machine, or on the cluster that it belongs to, until a signal comes."""

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
_LOOK_S: Final = 0.05


def run_until_stopped(settings: Settings, engine_factory: EngineFactory = open_engines) -> int:
    """Serve on every GPU of the cluster; returns the exit code: 1 when not all accepted work was answered in time."""
    stop = threading.Event()
    logging.getLogger("ray").setLevel(logging.WARNING)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    port = settings.port or _free_port(settings.host)
    settings = settings.model_copy(update={"log": logs.resolved(settings.log)})  # where it is read is known here
    with cluster.joined():
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, lambda *_: stop.set())  # not before: Ray has handlers of its own
        serve.start(http_options={"host": settings.host, "port": port})
        try:
            fleet = RayServeConfig(engines=max(1, cluster.gpus()))
            way_in = serve.run(application(settings, fleet, engine_factory), name=NAME, route_prefix="/")
            log.info("running on http://%s:%d (Ctrl-C to quit)", settings.host, port)
            stop.wait()
            return 0 if _drained(way_in, settings.drain_timeout_s) else 1
        finally:
            _leave()


def _leave() -> None:
    """Other applications of a cluster that was there before go on."""
    serve.delete(NAME)
    if not serve.status().applications:
        serve.shutdown()


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as found:
        return int(found.getsockname()[1])


def _drained(way_in: Any, timeout_s: float) -> bool:
    """New work is refused, accepted work answered. False when that takes too long."""
    until = time.monotonic() + timeout_s
    way_in.stop_admitting.remote().result()
    while way_in.in_flight.remote().result():
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_S)
    time.sleep(2 * _LOOK_S)  # answers that are made are on their way through the proxy
    return True
