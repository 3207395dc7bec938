"""Image files to mask files. A run that was interrupted continues where it stopped."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import track

from alignseg_serve.segmentation.backends import Backend, ImageFailed
from alignseg_serve.segmentation.image_files import SUFFIXES, list_images, output_name
from alignseg_serve.segmentation.outputs import Options
from alignseg_serve.segmentation.record import ModelId, Record
from service.errors import AlignSegError
from service.files import atomic_replace

OnSkipped = Callable[[str], object]
_OTHER_OUTPUTS: Final = SUFFIXES | {".gif", ".avif", ".heic", ".jp2", ".jxl", ".npy", ".json", ".zip"}
SOME_FAILED: Final = 1
INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class Job:
    """An image and the files to write for it, in the order of Options.suffixes, the mask first."""

    image: Path
    files: tuple[Path, ...]

    @property
    def mask(self) -> Path:
        """The first of the files."""
        return self.files[0]

    def is_done(self, record: Record, model: ModelId) -> bool:
        """Whether all its files exist and none is known to be of another image or model. Existing ones are complete."""
        return all(
            path.exists() and (not record.contains(path) or record.matches(path, self.image, model))
            for path in self.files
        )


def run(
    sources: Sequence[Path], out: Path, backend: Backend, console: Console, *, options: Options, overwrite: bool
) -> int:
    """Segment `sources` (images or folders) into `out`, as planned by `plan`. Returns the exit code.

    overwrite: segment images again whose files exist.
    Raises AlignSegError when there is no image, or a mask would overwrite an image. Raises what ends the backend, such
    as a server that goes away, after printing how much is done.
    """
    other_files: Counter[str] = Counter()
    on_skipped = partial(console.print, style="yellow", markup=False, soft_wrap=True)
    jobs = plan(sources, out, options, on_skipped=on_skipped, other_files=other_files)
    record = Record(out.parent if _is_file_name(out, options) else out, options.key)
    remaining = [job for job in jobs if overwrite or not job.is_done(record, backend.model)]
    for line in _notes(jobs, remaining, record, other_files):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    failures: list[_Failure] = []
    try:
        outcomes = _outcomes(remaining, lambda job: _segment(job, backend, record, options), backend.in_flight)
        for outcome in track(outcomes, "segmenting", len(remaining), console=console, disable=not remaining):
            failures += [outcome] if outcome is not None else []
    except BaseException as error:
        done = sum(job.is_done(record, backend.model) for job in jobs)
        end = "interrupted" if isinstance(error, KeyboardInterrupt) else "stopped"
        console.print(f"{end}: {done} of {len(jobs)} images are done; run the same command to continue", soft_wrap=True)
        if isinstance(error, KeyboardInterrupt):
            return INTERRUPTED
        raise
    for path, reason in sorted(failures):
        console.print(f"{path}: {reason}", style="red", markup=False, soft_wrap=True)
    console.print(f"{len(remaining) - len(failures)} masks written to {out}, {len(failures)} failed", markup=False)
    return SOME_FAILED if failures else 0


def _notes(
    jobs: Sequence[Job], remaining: Sequence[Job], record: Record, other_files: Mapping[str, int]
) -> Iterator[str]:
    """What is skipped and what is made again, a line each."""
    if other_files:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(other_files.items()))
        yield f"files skipped that are not named as images: {kinds}"
    again = sum(all(path.exists() for path in job.files) for job in remaining)
    if again:
        reason = "by another model, with other options or from an earlier image"
        yield f"{again} of {len(jobs)} masks were made {reason}, made again"
    done = [job for job in jobs if job not in set(remaining)]
    if done:
        yield f"{len(done)} of {len(jobs)} images are already done, skipped (--overwrite segments them again)"
    if unknown := sum(not record.contains(job.mask) for job in done):
        yield f"{unknown} of these masks have no record of their model; --overwrite replaces them"


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


def _segment(job: Job, backend: Backend, record: Record, options: Options) -> _Failure | None:
    try:
        segmented = backend.segment(job.image, options)
        for path, suffix in zip(reversed(job.files), reversed(options.suffixes), strict=True):  # the mask last
            path.unlink(missing_ok=True)  # before the record names another model than this file's
            record.add(path, job.image, segmented.model)
            _write(path, segmented.files[suffix])
    except (ImageFailed, OSError) as error:
        return job.image, str(error)
    return None


def plan(
    sources: Sequence[Path],
    out: Path,
    options: Options,
    *,
    on_skipped: OnSkipped = lambda message: None,
    other_files: Counter[str] | None = None,
) -> list[Job]:
    """The files to write for each image of `sources`: in the folder `out`, or, for a single image, `out` itself.

    street/a.jpg becomes street/a.png; with a street/a.bmp beside it they become a.jpg.png and a.bmp.png.
    on_skipped: called with a sentence for what is no input although it is in a folder, see `list_images`.
    other_files: counts the files that are not named as images, by their suffix. Raises AlignSegError.
    """
    mask_suffix = options.suffixes[0]
    if _is_file_name(out, options):
        jobs = [_single_job(sources, out, options)]
    elif out.suffix.lower() in _OTHER_OUTPUTS - {mask_suffix} and not out.exists():
        reason = (
            "masks are PNG files: other formats change or lose class ids"
            if options.masks == "png"
            else f"--masks {options.masks} writes JSON files"
        )
        raise AlignSegError(
            f"{out} names a {out.suffix} file, but {reason}. Pass --out {out.with_suffix(mask_suffix)}, or the name of "
            "a folder."
        )
    elif out.is_file():
        raise AlignSegError(
            f"{out} is a file; --out takes a folder or, for a single image, a name that ends in {mask_suffix}."
        )
    else:
        counts = Counter[str]() if other_files is None else other_files
        jobs = [job for source in sources for job in _jobs(source, out, options, on_skipped, counts)]
    _check_collisions(jobs)
    return jobs


def _is_file_name(out: Path, options: Options) -> bool:
    return out.suffix.lower() == options.suffixes[0] and not out.is_dir()


def _single_job(sources: Sequence[Path], out: Path, options: Options) -> Job:
    if len(sources) != 1 or sources[0].is_dir():
        raise AlignSegError(f"{out} names a single mask, and there may be several images. Pass a folder with --out.")
    base = out.with_suffix("")
    return Job(sources[0], (out, *(_with_suffix(base, suffix) for suffix in options.suffixes[1:])))


def _jobs(source: Path, out: Path, options: Options, on_skipped: OnSkipped, other_files: Counter[str]) -> list[Job]:
    images = _images(source, out, on_skipped, other_files)
    root = source if source.is_dir() else source.parent
    stems = Counter(_stem(image, root, out) for image in images)
    jobs = []
    for image in images:
        base = _stem(image, root, out)
        if stems[base] > 1:
            base = out / image.relative_to(root)
        jobs.append(Job(image, tuple(_with_suffix(base, suffix) for suffix in options.suffixes)))
    return jobs


def _images(source: Path, out: Path, on_skipped: OnSkipped, other_files: Counter[str]) -> list[Path]:
    if source.is_file():
        return [source]
    if out.resolve() == source.resolve():
        raise AlignSegError(f"{out} is the folder of the images. Use another, or a subfolder: --out {out / 'masks'}")
    others: list[Path] = []
    images, masks = list_images(source, on_skipped, others), out.resolve()
    if not source.resolve().is_relative_to(masks):  # masks of an earlier run are no input, also through links
        images, others = (
            [path for path in paths if not (path.parent.resolve() / path.name).is_relative_to(masks)]
            for paths in (images, others)
        )
    other_files.update(path.suffix.lower() or "without suffix" for path in others)
    if not images:
        raise AlignSegError(f"{source} contains no image; expected files named {', '.join(sorted(SUFFIXES))}.")
    return images


def _stem(image: Path, root: Path, out: Path) -> Path:
    return out / image.relative_to(root).with_suffix("")


def _with_suffix(base: Path, suffix: str) -> Path:
    return base.with_name(output_name(base.name, suffix))


def _check_collisions(jobs: list[Job]) -> None:
    """Raises AlignSegError when two images share an output file, or an output file is one of the images."""
    written = Counter(path.resolve() for job in jobs for path in job.files)
    if shared := [path for path, count in written.items() if count > 1]:
        raise AlignSegError(f"two images would be written to the same file, {shared[0]}. Rename one of them.")
    if overwritten := [job.image for job in jobs if job.image.resolve() in written]:
        raise AlignSegError(f"a mask would overwrite the image {overwritten[0]}. Pass another folder with --out.")


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: an interrupted run leaves no half a file that the next one would skip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_replace(path, durable=False) as temporary:
        temporary.write_bytes(data)
