"""Pictures on disk -> masks on disk, whoever segments them. Goes on where it stopped."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import track

from service.errors import AlignSegError
from service.files import atomic_replace

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
SOME_FAILED: Final = 1
INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class Job:
    """A picture and the files it becomes; no overlay when None."""

    picture: Path
    mask: Path
    overlay: Path | None

    @property
    def done(self) -> bool:
        """Whether all its files are there. They appear whole or not at all."""
        return self.mask.exists() and (self.overlay is None or self.overlay.exists())


@dataclass(frozen=True, slots=True)
class Masks:
    """PNGs of one picture. overlay: None when not asked for."""

    mask: bytes
    overlay: bytes | None


class PictureFailed(Exception):
    """The picture at hand can't be done; the others can. Any other exception ends the run."""


# A picture and whether its overlay is wanted -> its masks. Raises PictureFailed.
Segmenter = Callable[[Path, bool], Masks]


def run(
    sources: Sequence[Path],
    out: Path,
    segmenter: Segmenter,
    console: Console,
    *,
    overlay: bool,
    overwrite: bool,
    in_flight: int = 1,
) -> int:
    """Segment `sources` (pictures or folders) into `out`, as `plan` has it; returns the exit code.

    in_flight: pictures at once, each in a thread; with 1 all is done in this one.
    Raises AlignSegError when there is nothing to do or a mask would overwrite a picture.
    """
    jobs = plan(sources, out, overlay=overlay)
    open_jobs = [job for job in jobs if overwrite or not job.done]
    if skipped := len(jobs) - len(open_jobs):
        console.print(f"{skipped} of {len(jobs)} are done already and skipped (--overwrite does them again)")
    failed: list[_Failure] = []
    try:
        outcomes = _outcomes(open_jobs, lambda job: _segment(job, segmenter), in_flight)
        for outcome in track(outcomes, description="segmenting", total=len(open_jobs), console=console):
            failed += [outcome] if outcome is not None else []
    except KeyboardInterrupt:
        left = sum(not job.done for job in jobs)
        console.print(f"interrupted: {len(jobs) - left} of {len(jobs)} are done; the same command goes on from here")
        return INTERRUPTED
    for picture, reason in sorted(failed):
        console.print(f"{picture}: {reason}", style="red", markup=False, soft_wrap=True)
    console.print(f"{len(open_jobs) - len(failed)} written to {out}, {len(failed)} failed", markup=False)
    return SOME_FAILED if failed else 0


_Failure = tuple[Path, str]  # the picture and why


def _outcomes(jobs: Sequence[Job], do: Callable[[Job], _Failure | None], in_flight: int) -> Iterator[_Failure | None]:
    """Outcomes as they come. Left early, it waits for what is in flight and starts no more."""
    if in_flight == 1:  # in this thread, so that Ctrl-C stops the work itself
        yield from map(do, jobs)
        return
    with ThreadPoolExecutor(in_flight) as pool:
        try:
            for future in as_completed([pool.submit(do, job) for job in jobs]):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _segment(job: Job, segmenter: Segmenter) -> _Failure | None:
    try:
        masks = segmenter(job.picture, job.overlay is not None)
        if job.overlay is not None and masks.overlay is not None:
            _write(job.overlay, masks.overlay)
        _write(job.mask, masks.mask)
    except (PictureFailed, OSError) as error:
        return job.picture, str(error)
    return None


def plan(sources: Sequence[Path], out: Path, *, overlay: bool) -> list[Job]:
    """Every picture of `sources` with files of its own: under the folder `out`, or, for one picture, `out` itself.

    street/a.jpg becomes street/a.png; with a street/a.bmp beside it they become a.jpg.png and a.bmp.png.
    Raises AlignSegError.
    """
    if out.suffix.lower() == ".png" and not out.is_dir():
        jobs = [_one(sources, out, overlay=overlay)]
    elif out.is_file():
        raise AlignSegError(f"{out} is a file; -o takes a folder, or, for one picture, a name that ends in .png.")
    else:
        jobs = [job for source in sources for job in _all_of(source, out, overlay=overlay)]
    _refuse_clashes(jobs)
    return jobs


def _one(sources: Sequence[Path], out: Path, *, overlay: bool) -> Job:
    if len(sources) != 1 or sources[0].is_dir():
        raise AlignSegError(f"{out} is the name of one mask, and there may be more to write. Give a folder with -o.")
    return Job(sources[0], out, out.with_suffix(".overlay.png") if overlay else None)


def _all_of(source: Path, out: Path, *, overlay: bool) -> list[Job]:
    pictures = _pictures(source, out)
    root = source if source.is_dir() else source.parent
    stems = Counter(_stem(p, root, out) for p in pictures)
    jobs = []
    for picture in pictures:
        base = _stem(picture, root, out)
        if stems[base] > 1:
            base = out / picture.relative_to(root)
        jobs.append(Job(picture, _with(base, ".png"), _with(base, ".overlay.png") if overlay else None))
    return jobs


def _pictures(source: Path, out: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if out.resolve() == source.resolve():
        raise AlignSegError(f"{out} is the pictures' own folder. Choose another, or one inside it: -o {out / 'masks'}")
    found = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if out.resolve().is_relative_to(source.resolve()):  # masks of an earlier run are no pictures
        found = [p for p in found if not p.resolve().is_relative_to(out.resolve())]
    if not found:
        raise AlignSegError(f"{source} holds no picture; looked for {', '.join(sorted(SUFFIXES))}.")
    return found


def _stem(picture: Path, root: Path, out: Path) -> Path:
    return out / picture.relative_to(root).with_suffix("")


def _with(base: Path, suffix: str) -> Path:
    return base.with_name(base.name + suffix)


def _refuse_clashes(jobs: list[Job]) -> None:
    """Better no work than a file that belongs to two pictures, or a picture lost under its mask."""
    written = Counter(path.resolve() for job in jobs for path in (job.mask, job.overlay) if path is not None)
    if twice := [path for path, times in written.items() if times > 1]:
        raise AlignSegError(f"two pictures would both be written to {twice[0]}. Rename one of them.")
    if lost := [job.picture for job in jobs if job.picture.resolve() in written]:
        raise AlignSegError(f"a mask would overwrite the picture {lost[0]}. Choose another folder with -o.")


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: an interrupted run leaves no half a file that the next one would skip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_replace(path, durable=False) as temporary:
        temporary.write_bytes(data)
