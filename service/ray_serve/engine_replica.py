"""One engine replica, one GPU: the models it serves, each with the same batcher as the single server.

A changed model folder is loaded beside the model that serves, as in the single server. The old model is kept until no
ingress has asked for it for a while: each ingress switches to the new model at its own time.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
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
from service.ray_serve.messages import Call, Description, Reply, error_to_wire, tag
from service.settings import Settings
from service.types import UInt8Array

log = logging.getLogger("alignseg.ray")
_MAX_CALLS: Final = 1000  # kept for the next reply; a replica without requests makes none


class EngineReplica:
    """Serves models to ingresses. All methods are called on one event loop."""

    def __init__(self, settings: Settings, engine_factory: EngineFactory) -> None:
        self.settings = settings
        self._engine_factory = engine_factory
        self._models: dict[str, ServedModel] = {}  # by tag; the newest is last
        self._last_used: dict[str, float] = {}  # by tag, on time.monotonic()
        self._calls: list[Call] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Load the model, warm it up, watch its folder. Raises ManifestError, EngineUnavailable or EngineError."""
        before = snapshot(self.settings.model)
        manifest = await asyncio.to_thread(manifests.load, self.settings.model)
        model = await asyncio.to_thread(self._load, manifest)
        await model.warm_up()
        self._models[tag(manifest)] = model
        self._health = Health(self.settings, AdmissionController(Limits(1)), model)
        self._watch = ModelWatcher(
            self, self.settings.model, self._load, self.settings.model_poll_s, lambda outcome: None, before
        )
        self._run_in_background(self._watch.run())

    @property
    def manifest(self) -> Manifest:
        """The manifest of the newest model."""
        return self._health.model.manifest

    def replace_model(self, model: ServedModel) -> None:
        """Serve another model; keep the previous one while it is used."""
        old_tag, old = tag(self.manifest), self._health.model
        self._models.pop(new_tag := tag(model.manifest), None)
        self._models[new_tag] = self._health.model = model
        self._run_in_background(self._close_when_unused(old_tag, old))

    async def infer(self, model: str, pixels: UInt8Array, left_s: float, with_confidence: bool) -> Reply:
        """Infer one image within `left_s` seconds. model: its tag. pixels: (H, W, 3) uint8 RGB, a bucket's size."""
        served = self._models.get(model)
        if served is None:
            refused = f"; it refused the latest one: {self._watch.refused}" if self._watch.refused else ""
            return Reply(retry_on_other_replica=f"this replica has {', '.join(self._models)}, not {model}{refused}")
        self._last_used[model] = time.monotonic()
        with served.in_use():
            try:
                result = await served.batcher.submit(pixels, time.monotonic() + left_s, with_confidence)
            except (DeviceLost, NotReady) as error:
                return Reply(retry_on_other_replica=str(error), calls=self._take_calls())
            except (EngineError, DeadlineExceeded) as error:
                return Reply(error=error_to_wire(error), calls=self._take_calls())
        return Reply(result.ids, result.confidence, result.infer_s, result.batch_size, calls=self._take_calls())

    async def describe(self) -> Description:
        """Return what this replica serves."""
        model = self._health.model
        batch, tags = model.total_batch_size, tuple(self._models)
        return Description(model.runtime, model.has_confidence, batch, tags, self._watch.refused)

    async def check_health(self) -> None:
        """Raise RuntimeError if the latest real inference failed and another one fails too: Ray Serve replaces it."""
        if (reason := await self._health.why_not_ready()) is not None:
            raise RuntimeError(reason)

    async def close(self) -> None:
        """Complete the accepted images, then close the engines."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        timeout_s = self.settings.drain_timeout_s
        await asyncio.gather(*(model.close_when_idle(timeout_s) for model in self._models.values()))

    def _load(self, manifest: Manifest) -> ServedModel:
        engines = self._engine_factory(self.settings, manifest)
        delay_s = self.settings.max_queue_delay_ms / 1e3
        return ServedModel(manifest, Batcher(engines, max_queue_delay_s=delay_s, on_call=self._record_call()))

    def _record_call(self) -> OnCall:
        def on_call(size: int, error: EngineError | None) -> None:
            if len(self._calls) < _MAX_CALLS:
                self._calls.append((size, None if error is None else type(error).__name__))

        return on_call

    def _take_calls(self) -> tuple[Call, ...]:
        calls, self._calls = self._calls, []
        return tuple(calls)

    async def _close_when_unused(self, old_tag: str, model: ServedModel) -> None:
        """Close a replaced model once it has not been used for as long as an ingress may take to switch."""
        unused_s = self.settings.drain_timeout_s
        self._last_used[old_tag] = time.monotonic()
        while (wait_s := self._last_used[old_tag] + unused_s - time.monotonic()) > 0:  # noqa: ASYNC110 - a deadline
            await asyncio.sleep(wait_s)
        if self._models.get(old_tag) is model:
            del self._models[old_tag]
        log.info("Closing model %s: not used for %g s", old_tag, unused_s)
        await model.close_when_idle(unused_s)

    def _run_in_background(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
