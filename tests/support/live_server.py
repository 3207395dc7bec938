"""The application on a real port of 127.0.0.1, in a thread of this process: for third-party HTTP clients."""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import uvicorn

from service.app import create_app
from service.model_folder.manifest import Manifest
from service.settings import Settings
from tests.support.fake_engine import FakeEngine, manifest


@contextmanager
def live(
    engine: FakeEngine | None = None, model: Manifest | None = None, **settings: Any
) -> Generator[str, None, None]:
    """Yields the URL of a server with a fake engine, warmed up; drained at the end."""
    app = create_app(Settings(**settings), [engine or FakeEngine()], model or manifest())
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(120)
        assert not thread.is_alive(), "the server did not stop"
