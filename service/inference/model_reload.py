"""Watches the model folder. A changed model is loaded beside the one that serves, warmed up, and then replaces it.

If any step fails, the old model stays. The reason is logged and shown at /healthz/ready.
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
from service.observers import isolated, never_raises
from service.settings import Settings

log = logging.getLogger("alignseg.reload")
Load = Callable[[Manifest], ServedModel]
_Files = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class FolderSnapshot:
    """The files of a model folder and of its engines/ at one moment: name, modification time in ns, size in bytes."""

    files: _Files
    engines: _Files


class ModelHolder(Protocol):
    """The object whose model is replaced: the pipeline, or an engine replica of Ray Serve."""

    settings: Settings

    @property
    def manifest(self) -> Manifest:
        """The manifest of the model that serves."""
        ...

    def replace_model(self, model: ServedModel) -> None:
        """See Pipeline.replace_model."""
        ...


class ModelWatcher:
    """Checks the folder every `poll_s` seconds (0: never), and on `check_now`.

    load: opens the engines of a model; called in a thread. on_outcome: called with "swapped" or "refused".
    before: the folder before the manifest of the first model was read, so that later changes are noticed.
    refused: why the latest change was refused; None if it was not. busy: whether a model is being loaded.
    """

    def __init__(
        self,
        holder: ModelHolder,
        folder: Path,
        load: Load,
        poll_s: float,
        on_outcome: Callable[[str], object],
        before: FolderSnapshot | None = None,
    ) -> None:
        self.refused: str | None = None
        self.busy = False
        self._holder = holder
        self._folder = folder
        self._load = load
        self._poll_s = poll_s
        self._on_outcome = never_raises(on_outcome)
        self._loaded = self._latest = before or snapshot(folder)
        self._engines = self._loaded.engines
        self._check_requested = asyncio.Event()

    def check_now(self) -> None:
        """Load the folder's model as it is, without waiting until the folder stops changing."""
        self._check_requested.set()

    async def run(self) -> None:
        """Watch until cancelled: an error ends this check, not the watching."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._check_requested.wait(), self._poll_s or None)
            try:
                if self._check_requested.is_set() or self._has_settled():
                    await self._check()
            except Exception as error:
                self.refused = f"Checking the model folder failed: {error!r}"
                with isolated:
                    log.exception("Checking the model folder failed; the current model keeps serving")

    async def _check(self) -> None:
        self.busy = True
        try:
            self._check_requested.clear()
            self._loaded = self._latest = snapshot(self._folder)
            await self._reload()
        finally:
            self.busy = False

    def _has_settled(self) -> bool:
        """Return whether the folder differs from the loaded one and has stopped changing: copying takes time."""
        now, previous = snapshot(self._folder), self._latest
        self._latest = now
        return now == previous != self._loaded

    async def _reload(self) -> None:
        try:
            manifest = await asyncio.to_thread(manifests.load, self._folder)
            engines = _engine_files(self._folder)
            if manifest == self._holder.manifest and engines == self._engines:
                self.refused = None
                return
            log.info("Loading model %s %s; the current model keeps serving", manifest.name, manifest.version)
            model = await asyncio.to_thread(self._load, manifest)
            await self._warm_up(model)
        except Exception as error:  # whatever fails, the current model keeps serving
            self.refused = str(error)
            log.error("Changed model refused, the current model keeps serving: %s", error)
            self._on_outcome("refused")
            return
        self._holder.replace_model(model)
        self._engines = engines
        self.refused = None
        log.info("Model replaced: %s %s serves new requests", manifest.name, manifest.version)
        self._on_outcome("swapped")

    async def _warm_up(self, model: ServedModel) -> None:
        """Close the model and raise an error if it does not warm up."""
        warming = asyncio.ensure_future(model.warm_up())
        limit_s = self._holder.settings.engine_hang_s
        done, _ = await asyncio.wait({warming}, timeout=limit_s)  # not wait_for: it would wait for a hung engine
        timed_out = f"Warm-up took more than {limit_s:g} s (ALIGNSEG_ENGINE_HANG_S)."
        error = warming.exception() if done else EngineError(timed_out)
        if error is None:
            return
        warming.cancel()
        await model.close_when_idle(0)
        raise error


def snapshot(folder: Path) -> FolderSnapshot:
    """Return the folder's present state; a few stat calls."""
    return FolderSnapshot(_files(folder), _engine_files(folder))


def _files(folder: Path) -> _Files:
    try:
        entries = sorted(folder.iterdir())
        stats = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    except OSError:  # missing for a moment, while the folder is replaced
        return ()
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def _engine_files(folder: Path) -> _Files:
    """Return the descriptions of the model's TensorRT engines: the model is also reloaded for a newly built engine."""
    try:
        stats = [(path.name, path.stat()) for path in sorted((folder / engine_plan.FOLDER).glob("*.json"))]
    except OSError:
        return ()
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
