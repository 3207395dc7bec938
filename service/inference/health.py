"""Liveness and readiness, with the reason when a check fails."""

import asyncio
import time
from typing import Final

from service.admission.controller import AdmissionController
from service.inference.served_model import ServedModel
from service.settings import Settings

_PROBE_S: Final = 1.0


class Health:
    """Judges the engine by its latest real inference. model: the model that serves new requests."""

    def __init__(self, settings: Settings, admission: AdmissionController, model: ServedModel) -> None:
        self.model = model
        self._settings = settings
        self._admission = admission

    @property
    def lost(self) -> bool:
        """Whether all engines are lost: only a new process helps."""
        return self.model.batcher.lost is not None

    def why_not_alive(self) -> str | None:
        """Return None while the process can serve, else why it has to be restarted."""
        if self.lost:
            return f"the engine is lost: {self.model.batcher.lost}"
        if (busy_s := self._busy_s()) > self._settings.engine_hang_s:
            return (
                f"the engine hangs: one call has taken {busy_s:.0f} s, limit {self._settings.engine_hang_s:g} s "
                "(ALIGNSEG_ENGINE_HANG_S)"
            )
        return None

    async def why_not_ready(self) -> str | None:
        """Return None if the latest real inference succeeded and requests are admitted, else the reason.

        After a failed inference this runs a new one, so that a server without traffic becomes ready again.
        """
        if (reason := self.why_not_alive()) is not None:
            return reason
        if self._admission.closed_because is not None:
            return self._admission.closed_because
        if (busy_s := self._busy_s()) > (limit_s := self._settings.request_timeout_ms / 1e3):
            return f"one engine call has taken {busy_s:.1f} s, limit {limit_s:g} s (ALIGNSEG_REQUEST_TIMEOUT_MS)"
        return await self._probe() if self.model.batcher.last_error is not None else None

    def _busy_s(self) -> float:
        since = self.model.batcher.busy_since
        return 0.0 if since is None else time.monotonic() - since

    async def _probe(self) -> str | None:
        probe = asyncio.ensure_future(self.model.warm_up())
        # Not asyncio.timeout: it would wait for the engine, which may hang.
        done, _ = await asyncio.wait({probe}, timeout=_PROBE_S)
        if done and probe.exception() is None:
            return None
        probe.cancel()
        return f"the latest inference failed: {self.model.batcher.last_error}"
