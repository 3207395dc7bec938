"""Image files to mask files. A run that was interrupted continues where it stopped."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import track

from alignseg_serve.segmentation.backends import Backend, ImageFailed
from alignseg_serve.segmentation.image_files import SUFFIXES, list_images, output_name
from service.errors import AlignSegError
from service.files import atomic_replace

OnSkipped = Callable[[str], object]
SOME_FAILED: Final = 1
INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class Job:
    """An image and the files to write for it. overlay: None when none is requested."""

    image: Path
    mask: Path
    overlay: Path | None

    @property
    def done(self) -> bool:
        """Whether all its files exist. They are written atomically, so they are complete."""
        return self.mask.exists() and (self.overlay is None or self.overlay.exists())


def run(
    sources: Sequence[Path], out: Path, backend: Backend, console: Console, *, overlay: bool, overwrite: bool
) -> int:
    """Segment `sources` (images or folders) into `out`, as planned by `plan`. Returns the exit code.

    overwrite: segment images again whose files exist.
    Raises AlignSegError when there is no image, or a mask would overwrite an image.
    """
    on_skipped = partial(console.print, style="yellow", markup=False, soft_wrap=True)
    jobs = plan(sources, out, overlay=overlay, on_skipped=on_skipped)
    remaining = [job for job in jobs if overwrite or not job.done]
    if skipped := len(jobs) - len(remaining):
        console.print(f"{skipped} of {len(jobs)} images are already done, skipped (--overwrite segments them again)")
    failures: list[_Failure] = []
    try:
        outcomes = _outcomes(remaining, lambda job: _segment(job, backend), backend.in_flight)
        for outcome in track(outcomes, description="segmenting", total=len(remaining), console=console):
            failures += [outcome] if outcome is not None else []
    except KeyboardInterrupt:
        done = sum(job.done for job in jobs)
        console.print(f"interrupted: {done} of {len(jobs)} images are done; run the same command to continue")
        return INTERRUPTED
    for path, reason in sorted(failures):
        console.print(f"{path}: {reason}", style="red", markup=False, soft_wrap=True)
    console.print(f"{len(remaining) - len(failures)} masks written to {out}, {len(failures)} failed", markup=False)
    return SOME_FAILED if failures else 0


_Failure = tuple[Path, str]  # the image and the reason


def _outcomes(jobs: Sequence[Job], do: Callable[[Job], _Failure | None], in_flight: int) -> Iterator[_Failure | None]:
    """Outcomes in order of completion. When the caller stops early, jobs in flight finish and no other is started."""
    if in_flight == 1:  # in this thread, so that Ctrl-C interrupts the job itself
        yield from map(do, jobs)
        return
    with ThreadPoolExecutor(in_flight) as pool:
        try:
            for future in as_completed([pool.submit(do, job) for job in jobs]):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _segment(job: Job, backend: Backend) -> _Failure | None:
    try:
        files = backend.segment(job.image, job.overlay is not None)
        if job.overlay is not None and files.overlay is not None:
            _write(job.overlay, files.overlay)
        _write(job.mask, files.mask)
    except (ImageFailed, OSError) as error:
        return job.image, str(error)
    return None


def plan(
    sources: Sequence[Path], out: Path, *, overlay: bool, on_skipped: OnSkipped = lambda message: None
) -> list[Job]:
    """The files to write for each image of `sources`: in the folder `out`, or, for a single image, `out` itself.

    street/a.jpg becomes street/a.png; with a street/a.bmp beside it they become a.jpg.png and a.bmp.png.
    on_skipped: called with a sentence for what is no input although it is in a folder, see `list_images`.
    Raises AlignSegError.
    """
    if out.suffix.lower() == ".png" and not out.is_dir():
        jobs = [_single_job(sources, out, overlay=overlay)]
    elif out.is_file():
        raise AlignSegError(f"{out} is a file; --out takes a folder or, for a single image, a name that ends in .png.")
    else:
        jobs = [job for source in sources for job in _jobs(source, out, on_skipped, overlay=overlay)]
    _check_collisions(jobs)
    return jobs


def _single_job(sources: Sequence[Path], out: Path, *, overlay: bool) -> Job:
    if len(sources) != 1 or sources[0].is_dir():
        raise AlignSegError(f"{out} names a single mask, and there may be several images. Pass a folder with --out.")
    return Job(sources[0], out, _with_suffix(out.with_suffix(""), ".overlay.png") if overlay else None)


def _jobs(source: Path, out: Path, on_skipped: OnSkipped, *, overlay: bool) -> list[Job]:
    images = _images(source, out, on_skipped)
    root = source if source.is_dir() else source.parent
    stems = Counter(_stem(image, root, out) for image in images)
    jobs = []
    for image in images:
        base = _stem(image, root, out)
        if stems[base] > 1:
            base = out / image.relative_to(root)
        jobs.append(Job(image, _with_suffix(base, ".png"), _with_suffix(base, ".overlay.png") if overlay else None))
    return jobs


def _images(source: Path, out: Path, on_skipped: OnSkipped) -> list[Path]:
    if source.is_file():
        return [source]
    if out.resolve() == source.resolve():
        raise AlignSegError(f"{out} is the folder of the images. Use another, or a subfolder: --out {out / 'masks'}")
    images, masks = list_images(source, on_skipped), out.resolve()
    if not source.resolve().is_relative_to(
        masks
    ):  # masks of an earlier run are not input, nor where a link leads to them
        images = [path for path in images if not (path.parent.resolve() / path.name).is_relative_to(masks)]
    if not images:
        raise AlignSegError(f"{source} contains no image; expected files named {', '.join(sorted(SUFFIXES))}.")
    return images


def _stem(image: Path, root: Path, out: Path) -> Path:
    return out / image.relative_to(root).with_suffix("")


def _with_suffix(base: Path, suffix: str) -> Path:
    return base.with_name(output_name(base.name, suffix))


def _check_collisions(jobs: list[Job]) -> None:
    """Raises AlignSegError when two images share an output file, or an output file is one of the images."""
    written = Counter(path.resolve() for job in jobs for path in (job.mask, job.overlay) if path is not None)
    if shared := [path for path, count in written.items() if count > 1]:
        raise AlignSegError(f"two images would be written to the same file, {shared[0]}. Rename one of them.")
    if overwritten := [job.image for job in jobs if job.image.resolve() in written]:
        raise AlignSegError(f"a mask would overwrite the image {overwritten[0]}. Pass another folder with --out.")


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: an interrupted run leaves no half a file that the next one would skip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_replace(path, durable=False) as temporary:
        temporary.write_bytes(data)
