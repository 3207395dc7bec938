"""Is it alive, is it ready, and if not, why."""

import asyncio
import time
from typing import Final

from service.admission.controller import AdmissionController
from service.inference.served_model import ServedModel
from service.settings import Settings

_PROBE_S: Final = 1.0


class Health:
    """Judges the engine by its last real inference.

    model: the one that answers at the moment.
    """

    def __init__(self, settings: Settings, admission: AdmissionController, model: ServedModel) -> None:
        self.model = model
        self._settings = settings
        self._admission = admission

    @property
    def lost(self) -> bool:
        """Whether the engine told that only a new process helps."""
        return self.model.batcher.lost is not None

    def why_not_alive(self) -> str | None:
        """None while the process can still serve; else why it has to be started anew."""
        if self.lost:
            return f"the engine is lost: {self.model.batcher.lost}"
        if (busy_s := self._busy_s()) > self._settings.engine_hang_s:
            return f"the engine hangs: it has been in one call for {busy_s:.0f} s (ALIGNSEG_ENGINE_HANG_S)"
        return None

    async def why_not_ready(self) -> str | None:
        """None when the last real inference worked and new work is taken; else the reason.

        After a failed inference the engine is tried anew, so that a server whose traffic was taken away comes back.
        """
        if (reason := self.why_not_alive()) is not None:
            return reason
        if self._admission.closed_because is not None:
            return self._admission.closed_because
        if (busy_s := self._busy_s()) > self._settings.request_timeout_ms / 1e3:
            return f"the engine has been in one call for {busy_s:.0f} s"
        return await self._probe() if self.model.batcher.last_error is not None else None

    def _busy_s(self) -> float:
        since = self.model.batcher.busy_since
        return 0.0 if since is None else time.monotonic() - since

    async def _probe(self) -> str | None:
        probe = asyncio.ensure_future(self.model.warm_up())
        # Not asyncio.timeout: that would wait for the engine, which may hang.
        done, _ = await asyncio.wait({probe}, timeout=_PROBE_S)
        if done and probe.exception() is None:
            return None
        probe.cancel()
        return f"the last inference failed: {self.model.batcher.last_error}"
