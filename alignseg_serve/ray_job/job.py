"""One job: its stages as a pipeline of Ray Data, its progress and its summary."""

import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any, Final

import ray
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from alignseg_serve.ray_job import MaskFormat, inputs, results
from alignseg_serve.ray_job.stages import Encode, EngineFactory, Read, Segment, Write
from alignseg_serve.ray_job.storage import absolute, open_path
from alignseg_serve.segmentation.files import INTERRUPTED, SOME_FAILED
from service.engines.selection import open_engine
from service.errors import AlignSegError
from service.imaging.model_input import ImageLimits
from service.model_folder import manifest as manifests
from service.model_folder.manifest import Manifest
from service.ray_serve import cluster
from service.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray warns of its own defaults when it is imported
    import ray.data

    ray.data.DataContext.get_current()

IMAGES_PER_TASK: Final = 32  # enough to amortise the cost of a task, few enough to balance the load
ROWS_PER_FILE: Final = 512  # of OUT/pictures; at most this many images per writer are repeated after an interruption
BYTES_IN_FLIGHT: Final = 512 * 2**20  # of images between stages, per engine
MAX_SHOWN_FAILURES: Final = 20  # printed at the end; OUT/failed lists all


def run(
    source: str,
    out: str,
    settings: Settings,
    console: Console,
    *,
    masks: MaskFormat = "png",
    overwrite: bool = False,
    engine_factory: EngineFactory = open_engine,
    manifest: Manifest | None = None,
) -> int:
    """Segment every image of `source` that is not done yet. Returns the exit code.

    source: a folder or Parquet. It, `out` and the model folder must have the same path on all nodes.
    engine_factory, manifest: replace the model of the settings' folder.
    Raises AlignSegError when there is nothing to segment or the job ends early.
    """
    manifest = manifest or manifests.load(settings.model)
    source, out = absolute(source), absolute(out)
    parts = inputs.parts(source)
    path = open_path(source).path  # not the URI, which may contain credentials
    job = {"model": f"{manifest.name} {manifest.version}", "source": path, "masks": masks}
    done = results.begin(open_path(out), job, overwrite=overwrite)
    if len(done):
        console.print(f"{len(done)} images are already done, skipped (--overwrite segments all again)")
    tally = _Tally(manifest)
    try:
        with cluster.connected(quiet=True):
            _show_progress(_stream(parts, out, settings, manifest, masks, engine_factory, done), tally, console)
    except KeyboardInterrupt:
        written = sum(1 for _ in results.keys(open_path(out)))  # the tally misses those of tasks that were cancelled
        console.print(f"interrupted: {written} images are done; run the same command to continue")
        return INTERRUPTED
    except ray.exceptions.RayError as error:
        raise AlignSegError(f"the job failed: {_cause(error)}. Run the same command to continue.") from error
    tally.print_summary(open_path(out).path, console)
    return SOME_FAILED if tally.failed else 0


def _stream(
    parts: list[inputs.Row],
    out: str,
    settings: Settings,
    manifest: Manifest,
    masks: MaskFormat,
    engine_factory: EngineFactory,
    done: results.Hashes,
) -> Iterator[dict[str, Any]]:
    """Rows of stages.SUMMARY as they are ready. Ray Data pauses stages whose output is not consumed yet."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    engines = cluster.gpus() or cluster.nodes()
    # Without a limit, stages run ahead until the object store, a third of each node's memory, is full.
    limits = ray.data.ExecutionResources.for_limits(object_store_memory=engines * BYTES_IN_FLIGHT)
    context.execution_options.resource_limits = limits
    shared_hashes = ray.put(done)
    image_limits = ImageLimits(settings.max_pixels, settings.max_tiles)

    def list_images(part: inputs.Row) -> Iterator[inputs.Row]:
        hashes = ray.get(shared_hashes)
        return inputs.images(part, open_path(out), lambda key: not results.is_done(hashes, key))

    arrow: Any = {"batch_format": "pyarrow"}
    return iter(
        ray.data.from_items(parts, override_num_blocks=len(parts))
        .flat_map(list_images)
        .repartition(target_num_rows_per_block=IMAGES_PER_TASK)
        .map_batches(_AsTask(Read(manifest, image_limits)), batch_size=IMAGES_PER_TASK, **arrow)
        .map_batches(
            Segment, fn_constructor_args=(settings, manifest, engine_factory), batch_size=IMAGES_PER_TASK, **arrow,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=engines), num_gpus=1 if cluster.gpus() else 0,
        )
        .map_batches(_AsTask(Encode(manifest, image_limits, masks)), batch_size=IMAGES_PER_TASK, **arrow)
        .map_batches(_AsTask(Write(out, len(manifest.classes))), batch_size=ROWS_PER_FILE, **arrow)
        .iter_rows()
    )  # fmt: skip


class _AsTask:
    """A stage without an engine, as a function: Ray Data runs functions as tasks and classes as actors."""

    def __new__(cls, stage: Any) -> Any:
        def call(rows: Any) -> Any:
            return stage(rows)

        call.__name__ = type(stage).__name__
        return call


class _Tally:
    """Counts of what is done so far."""

    def __init__(self, manifest: Manifest) -> None:
        self.written = 0
        self.failed = 0
        self._shown: list[dict[str, str]] = []
        self._pixels = [0] * len(manifest.classes)
        self._names = manifest.names
        self._began = time.monotonic()

    def add(self, summary: dict[str, Any]) -> None:
        """Add a row of stages.SUMMARY."""
        self.written += summary["written"]
        self.failed += len(summary["failed"])
        self._shown += list(summary["failed"])[: MAX_SHOWN_FAILURES - len(self._shown)]
        self._pixels = [a + int(b) for a, b in zip(self._pixels, summary["pixels"], strict=True)]

    @property
    def images_per_second(self) -> float:
        """Throughput since the start, failures included."""
        return (self.written + self.failed) / (time.monotonic() - self._began)

    def print_summary(self, out: str, console: Console) -> None:
        """Print failures, counts, and the share of each class."""
        for failure in self._shown:
            console.print(f"{failure['picture']}: {failure['reason']}", style="red", markup=False, soft_wrap=True)
        if self.failed > len(self._shown):
            console.print(f"... and {self.failed - len(self._shown)} more: {out}/{results.FAILED}", markup=False)
        total = sum(self._pixels)
        shares = [(pixels / total, name) for pixels, name in zip(self._pixels, self._names, strict=True) if pixels]
        areas = ", ".join(f"{name} {share:.1%}" for share, name in sorted(shares, reverse=True))
        counts = f"{self.written} masks written to {out}, {self.failed} failed, {self.images_per_second:.1f} images/s"
        console.print(counts + (f"; {areas}" if areas else ""), markup=False, soft_wrap=True)


def _show_progress(stream: Iterator[dict[str, Any]], tally: _Tally, console: Console) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting")
        for summary in stream:
            tally.add(summary)
            progress.update(
                task, description=f"{tally.written} done, {tally.failed} failed, {tally.images_per_second:.1f} images/s"
            )


def _cause(error: BaseException) -> str:
    """The message of the original exception: the last line of Ray's."""
    return str(error).strip().splitlines()[-1]
