"""A changed model folder is noticed, its model loaded beside the one that answers, warmed up and put in its place.

Whatever goes wrong on the way, the old model stays, and the reason can be read in the log and at /healthz/ready.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from service.errors import EngineError
from service.inference.served_model import ServedModel
from service.model_folder import engine_plan
from service.model_folder import manifest as manifests
from service.model_folder.manifest import Manifest
from service.settings import Settings

log = logging.getLogger("alignseg.swap")
Load = Callable[[Manifest], ServedModel]
_Files = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class FolderSnapshot:
    """The files of a folder at one moment, and those of its engines: name, time and size."""

    files: _Files
    engines: _Files


class Holder(Protocol):
    """Who has the model that answers: the pipeline, or an engine's replica of a fleet."""

    settings: Settings

    @property
    def manifest(self) -> Manifest:
        """Of that model."""
        ...

    def exchange(self, model: ServedModel) -> None:
        """See Pipeline.exchange."""
        ...


class ModelWatcher:
    """Looks at the folder every `poll_s` seconds, or when told to.

    load: opens an engine; called in a thread. on_outcome: told "swapped" or "refused".
    seen: the folder as it was before its manifest was read, so that what came to lie there since is noticed.
    refused: why the last change was not taken; None when it was. busy: whether one is being loaded.
    """

    def __init__(
        self,
        holder: Holder,
        folder: Path,
        load: Load,
        poll_s: float,
        on_outcome: Callable[[str], object],
        seen: FolderSnapshot | None = None,
    ) -> None:
        self.refused: str | None = None
        self.busy = False
        self._holder = holder
        self._folder = folder
        self._load = load
        self._poll_s = poll_s
        self._on_outcome = on_outcome
        self._tried = self._seen = seen or snapshot(folder)
        self._plans = self._tried.engines
        self._told = asyncio.Event()

    def check_now(self) -> None:
        """Try the folder as it is, without waiting for it to come to rest."""
        self._told.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), self._poll_s or None)
            if self._told.is_set() or self._has_come_to_rest():
                self.busy = True
                self._told.clear()
                self._tried = self._seen = snapshot(self._folder)
                await self._try()
                self.busy = False

    def _has_come_to_rest(self) -> bool:
        """Whether the folder differs from what was tried, and does not change any more: copying takes its time."""
        now, before = snapshot(self._folder), self._seen
        self._seen = now
        return now == before != self._tried

    async def _try(self) -> None:
        try:
            manifest = await asyncio.to_thread(manifests.load, self._folder)
            plans = _plans(self._folder)
            if manifest == self._holder.manifest and plans == self._plans:
                self.refused = None
                return
            log.info("loading %s %s beside the model that answers", manifest.name, manifest.version)
            model = await self._warm(await self._opened(manifest))
        except Exception as error:  # whatever it is, the model that works goes on
            self.refused = str(error)
            log.error("the changed model is refused, the old one stays: %s", error)
            self._on_outcome("refused")
            return
        self._holder.exchange(model)
        self._plans = plans
        self.refused = None
        log.info("swapped: %s %s answers from now on", manifest.name, manifest.version)
        self._on_outcome("swapped")

    async def _opened(self, manifest: Manifest) -> ServedModel:
        return await asyncio.to_thread(self._load, manifest)

    async def _warm(self, model: ServedModel) -> ServedModel:
        warming = asyncio.ensure_future(model.warm_up())
        hang_s = self._holder.settings.engine_hang_s
        done, _ = await asyncio.wait({warming}, timeout=hang_s)  # not wait_for, which would wait for a hung engine
        error = warming.exception() if done else EngineError(f"it does not warm up within {hang_s} s")
        if error is None:
            return model
        warming.cancel()
        await model.retire(0)
        raise error


def snapshot(folder: Path) -> FolderSnapshot:
    """A few stat calls."""
    return FolderSnapshot(_files(folder), _plans(folder))


def _files(folder: Path) -> _Files:
    try:
        entries = sorted(folder.iterdir())
        stats = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    except OSError:  # gone for a moment: somebody is exchanging it
        return ()
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def _plans(folder: Path) -> _Files:
    """The engines that were built for the model, by their descriptions: a new one is worth a change of runtime."""
    try:
        stats = [(path.name, path.stat()) for path in sorted((folder / engine_plan.FOLDER).glob("*.json"))]
    except OSError:
        return ()
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
