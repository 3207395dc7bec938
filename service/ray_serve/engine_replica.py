"""One engine replica of a fleet, one GPU: models, each with the batcher that the single server has too.

A changed model folder is loaded beside the model that answers, as in the single server. The old one goes on answering
those who ask for it, until nobody does: ways in change over at their own moments.
"""

import asyncio
import contextlib
import logging
import time
from typing import Final

from service.admission.controller import AdmissionController, Limits
from service.batching.batcher import Batcher
from service.batching.fault_isolation import OnCall
from service.errors import DeadlineExceeded, DeviceLost, EngineError, NotReady
from service.inference.health import Health
from service.inference.lifespan import EngineFactory
from service.inference.model_reload import ModelWatcher, snapshot
from service.inference.served_model import ServedModel
from service.model_folder import manifest as manifests
from service.model_folder.manifest import Manifest
from service.ray_serve.messages import Call, Description, Reply, tag, told
from service.settings import Settings
from service.types import UInt8Array

log = logging.getLogger("alignseg.fleet")
_MOST_CALLS: Final = 1000  # kept for the next reply; a replica that nobody asks makes none


class Replica:
    """All its methods are called on one event loop."""

    def __init__(self, settings: Settings, engine_factory: EngineFactory) -> None:
        self.settings = settings
        self._opener = engine_factory
        self._models: dict[str, ServedModel] = {}  # by tag; the one that is served last
        self._asked: dict[str, float] = {}  # when each was asked for, on time.monotonic()
        self._calls: list[Call] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Load the model, warm it up, watch its folder. Raises ManifestError, EngineUnavailable or EngineError."""
        seen = snapshot(self.settings.model)
        manifest = await asyncio.to_thread(manifests.load, self.settings.model)
        model = await asyncio.to_thread(self._load, manifest)
        await model.warm_up()
        self._models[tag(manifest)] = model
        self._health = Health(self.settings, AdmissionController(Limits(1)), model)
        self._watch = ModelWatcher(
            self, self.settings.model, self._load, self.settings.model_poll_s, lambda outcome: None, seen
        )
        self._go_on(self._watch.run())

    @property
    def manifest(self) -> Manifest:
        """Of the newest model."""
        return self._health.model.manifest

    def exchange(self, model: ServedModel) -> None:
        """Serve another model, and the one before while it is asked for."""
        before, old = tag(self.manifest), self._health.model
        self._models.pop(name := tag(model.manifest), None)
        self._models[name] = self._health.model = model
        self._go_on(self._retire(before, old))

    async def infer(self, model: str, pixels: UInt8Array, left_s: float, with_confidence: bool) -> Reply:
        """One picture, (H, W, 3) uint8 RGB in a bucket of that model, within `left_s` seconds."""
        served = self._models.get(model)
        if served is None:
            refused = f"; it refused the last one: {self._watch.refused}" if self._watch.refused else ""
            return Reply(elsewhere=f"this replica has {', '.join(self._models)}, not {model}{refused}")
        self._asked[model] = time.monotonic()
        with served.in_use():
            try:
                found = await served.batcher.submit(pixels, time.monotonic() + left_s, with_confidence)
            except (DeviceLost, NotReady) as error:
                return Reply(elsewhere=str(error), calls=self._take_calls())
            except (EngineError, DeadlineExceeded) as error:
                return Reply(error=told(error), calls=self._take_calls())
        return Reply(found.ids, found.confidence, found.infer_s, found.batch_size, calls=self._take_calls())

    async def describe(self) -> Description:
        """What it has."""
        model = self._health.model
        batch, names = model.total_batch_size, tuple(self._models)
        return Description(model.runtime, model.has_confidence, batch, names, self._watch.refused)

    async def check_health(self) -> None:
        """Raises RuntimeError when its last real inference failed and another one does as well: Serve replaces it."""
        if (reason := await self._health.why_not_ready()) is not None:
            raise RuntimeError(reason)

    def _load(self, manifest: Manifest) -> ServedModel:
        engines = self._opener(self.settings, manifest)
        delay_s = self.settings.max_queue_delay_ms / 1e3
        return ServedModel(manifest, Batcher(engines, max_queue_delay_s=delay_s, on_call=self._counting()))

    def _counting(self) -> OnCall:
        def on_call(size: int, error: EngineError | None) -> None:
            if len(self._calls) < _MOST_CALLS:
                self._calls.append((size, None if error is None else type(error).__name__))

        return on_call

    def _take_calls(self) -> tuple[Call, ...]:
        calls, self._calls = self._calls, []
        return tuple(calls)

    async def _retire(self, name: str, model: ServedModel) -> None:
        """Once nobody has asked for it for as long as a way in may take to change over."""
        quiet_s = self.settings.drain_timeout_s
        self._asked[name] = time.monotonic()
        while (wait_s := self._asked[name] + quiet_s - time.monotonic()) > 0:  # noqa: ASYNC110 - it is to be over
            await asyncio.sleep(wait_s)
        if self._models.get(name) is model:
            del self._models[name]
        log.info("%s is asked for no more", name)
        await model.retire(quiet_s)

    def _go_on(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Answer what was accepted, let go of the engines."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(AttributeError):  # it never got as far as a model
            await asyncio.gather(*(model.retire(self.settings.drain_timeout_s) for model in self._models.values()))
