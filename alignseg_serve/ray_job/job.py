"""One job: the stages as a stream through Ray Data, its progress and its summary."""

import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any, Final

import ray
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from alignseg_serve.ray_job import inputs, results
from alignseg_serve.ray_job.stages import Encode, EngineFactory, Masks, Read, Segment, Write
from alignseg_serve.ray_job.storage import absolute, place
from alignseg_serve.segment.files import INTERRUPTED, SOME_FAILED
from service.engines.selection import open_engine
from service.errors import AlignSegError
from service.model_folder import manifest as manifests
from service.model_folder.manifest import Manifest
from service.ray_serve import cluster
from service.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of its own defaults, once
    import ray.data

    ray.data.DataContext.get_current()

AT_ONCE: Final = 32  # pictures in a task: enough to hide what a task costs, few enough to share out
A_FILE: Final = 512  # rows of a file in OUT/pictures; what an interruption may have to do again
IN_BETWEEN: Final = 512 * 2**20  # bytes of pictures between the stages, an engine
SHOWN: Final = 20  # failures that are printed; OUT/failed lists all


def run(
    source: str,
    out: str,
    settings: Settings,
    console: Console,
    *,
    masks: Masks = "png",
    overwrite: bool = False,
    engine_factory: EngineFactory = open_engine,
    manifest: Manifest | None = None,
) -> int:
    """Segment every picture of `source` that is not done yet; returns the exit code.

    source: a folder, or Parquet; it, `out` and the model's folder must be reachable by the same names on all nodes.
    opener, manifest: the model, where it does not lie in the settings' folder.
    Raises AlignSegError when there is nothing to do.
    """
    manifest = manifest or manifests.load(settings.model)
    source, out = absolute(source), absolute(out)
    parts = inputs.parts(source)
    told = place(source).path  # not the URI, which may hold a secret
    job = {"model": f"{manifest.name} {manifest.version}", "source": told, "masks": masks}
    done = results.begin(place(out), job, overwrite=overwrite)
    if len(done):
        console.print(f"{len(done)} are done already and skipped (--overwrite does all again)")
    tally = _Tally(manifest)
    try:
        with cluster.connected(quiet=True):
            _follow(_stream(parts, out, settings, manifest, masks, engine_factory, done), tally, console)
    except KeyboardInterrupt:
        written = sum(1 for _ in results.keys(place(out)))  # more than came back
        console.print(f"interrupted: {written} are done; the same command goes on from here")
        return INTERRUPTED
    except ray.exceptions.RayError as error:
        raise AlignSegError(f"the job ended early: {_cause(error)}. The same command goes on from here.") from error
    tally.tell(place(out).path, console)
    return SOME_FAILED if tally.failed else 0


def _stream(
    parts: list[inputs.Row],
    out: str,
    settings: Settings,
    manifest: Manifest,
    masks: Masks,
    engine_factory: EngineFactory,
    done: results.Hashes,
) -> Iterator[dict[str, Any]]:
    """Rows of stages.TOLD as they come. Ray Data holds back a stage whose results are not taken yet."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    engines = cluster.gpus() or cluster.nodes()
    # Else it lets stages run ahead until the object store is full, which is a third of each node's memory.
    limits = ray.data.ExecutionResources.for_limits(object_store_memory=engines * IN_BETWEEN)
    context.execution_options.resource_limits = limits
    known = ray.put(done)

    def listed(part: inputs.Row) -> Iterator[inputs.Row]:
        here = ray.get(known)
        return inputs.pictures(part, place(out), lambda key: not results.is_done(here, key))

    arrow: Any = {"batch_format": "pyarrow"}
    return iter(
        ray.data.from_items(parts, override_num_blocks=len(parts))
        .flat_map(listed)
        .repartition(target_num_rows_per_block=AT_ONCE)
        .map_batches(_Called(Read(manifest, settings.max_pixels)), batch_size=AT_ONCE, **arrow)
        .map_batches(
            Segment, fn_constructor_args=(settings, manifest, engine_factory), batch_size=AT_ONCE, **arrow,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=engines), num_gpus=1 if cluster.gpus() else 0,
        )
        .map_batches(_Called(Encode(manifest, masks)), batch_size=AT_ONCE, **arrow)
        .map_batches(_Called(Write(out, len(manifest.classes))), batch_size=A_FILE, **arrow)
        .iter_rows()
    )  # fmt: skip


class _Called:
    """A stage without state, as the function that Ray Data takes for a task rather than an actor."""

    def __new__(cls, stage: Any) -> Any:
        def call(rows: Any) -> Any:
            return stage(rows)

        call.__name__ = type(stage).__name__
        return call


class _Tally:
    """What has come out so far."""

    def __init__(self, manifest: Manifest) -> None:
        self.written = 0
        self.failed = 0
        self._shown: list[dict[str, str]] = []
        self._pixels = [0] * len(manifest.classes)
        self._names = manifest.names
        self._began = time.monotonic()

    def add(self, told: dict[str, Any]) -> None:
        """A row of stages.TOLD."""
        self.written += told["written"]
        self.failed += len(told["failed"])
        self._shown += list(told["failed"])[: SHOWN - len(self._shown)]
        self._pixels = [a + int(b) for a, b in zip(self._pixels, told["pixels"], strict=True)]

    @property
    def a_second(self) -> float:
        """Pictures."""
        return (self.written + self.failed) / (time.monotonic() - self._began)

    def tell(self, out: str, console: Console) -> None:
        """The summary."""
        for failure in self._shown:
            console.print(f"{failure['picture']}: {failure['reason']}", style="red", markup=False, soft_wrap=True)
        if self.failed > len(self._shown):
            console.print(f"... and {self.failed - len(self._shown)} more: {out}/{results.FAILED}", markup=False)
        total = sum(self._pixels)
        shares = [(pixels / total, name) for pixels, name in zip(self._pixels, self._names, strict=True) if pixels]
        areas = ", ".join(f"{name} {share:.1%}" for share, name in sorted(shares, reverse=True))
        written = f"{self.written} written to {out}, {self.failed} failed, {self.a_second:.1f} a second"
        console.print(written + (f"; {areas}" if areas else ""), markup=False, soft_wrap=True)


def _follow(stream: Iterator[dict[str, Any]], tally: _Tally, console: Console) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting")
        for told in stream:
            tally.add(told)
            progress.update(
                task, description=f"{tally.written} done, {tally.failed} failed, {tally.a_second:.1f} a second"
            )


def _cause(error: BaseException) -> str:
    """The last line of what Ray wraps in its own traceback."""
    return str(error).strip().splitlines()[-1]
