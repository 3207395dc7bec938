"""The application that `serve deploy` builds in tests: the shipped one, with slow engines."""

import time
from typing import Any

from ray import serve

from service.engines.selection import open_engines
from service.model_folder.manifest import Manifest
from service.ray_serve.application import RayServeConfig, application
from service.settings import Settings
from service.types import Engine, Inference, UInt8Array

ENGINE_S = 0.1


class SlowEngine:
    """Computes one image at a time, each in ENGINE_S."""

    max_batch = 1

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.has_confidence, self.close = engine.name, engine.has_confidence, engine.close

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        time.sleep(ENGINE_S)
        return self._engine.infer(batch, with_confidence)


def open_slow_engines(settings: Settings, manifest: Manifest) -> list[Any]:
    return [SlowEngine(engine) for engine in open_engines(settings, manifest)]


def build(args: RayServeConfig) -> serve.Application:
    return application(Settings(**args.settings), args, open_slow_engines)
