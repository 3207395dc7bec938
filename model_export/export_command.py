"""What `alignseg export` does: a checkpoint in, a model folder out, each step said."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from model_export import checkpoint, int8_ranges, model_folder, parity, provenance
from model_export.alignseg import AlignSeg
from model_export.flops import cost
from service.contracts import UInt8Array

DEMO_FRAME = Path(__file__).parents[1] / "service" / "page" / "scene.jpg"
# Landscape first, then upright, square and wide: each picture takes the one in which it keeps most of its pixels.
# One more than a multiple of 16: then the corners of the maps at 1/4, 1/8 and 1/16 lie on those of the picture, as
# resizing with aligned corners takes them to (training/protocols.py: on_raster); 360x480 itself costs 0.7 mIoU.
DEFAULT_BUCKETS = ((369, 481), (481, 369), (417, 417), (289, 609))
FRAMES_COMPARED = 3


def run(
    source: Path,
    folder: Path,
    console: Console,
    *,
    data: str | None,
    classes: Path | None,
    frames: Path | None,
    buckets: Sequence[tuple[int, int]],
    half: bool,
    calibration: Path | None = None,
    with_checkpoint: bool = True,
) -> None:
    """Export checkpoint `source` into model folder `folder` and print the comparison with PyTorch.

    Raises CheckpointError, ParityError, ValueError or FileNotFoundError; `folder` is then as it was.
    """
    console.print(f"load      {source}")
    network = checkpoint.load(source)
    metadata = checkpoint.read_metadata(source) if source.suffix == ".safetensors" else {}
    architecture = network.architecture
    origin = provenance.of(metadata, data, classes, architecture.num_classes)
    description = describe(network, buckets[0])
    pictures = read_frames(frames)
    typical = read_frames(calibration, most=int8_ranges.PICTURES) if calibration else []
    console.print(f"export    {description}; compared with PyTorch on {len(pictures)} pictures ...", soft_wrap=True)
    rows = model_folder.write(
        folder,
        network,
        origin,
        buckets,
        pictures,
        description=description,
        model_version=datetime.now(UTC).strftime("%Y.%m.%d"),
        metadata={key: value for key, value in metadata.items() if key not in {"format", "architecture"}},
        half=half,
        calibration=typical,
        with_checkpoint=with_checkpoint,
    )
    console.print(parity.table(rows), highlight=False)
    sizes = ", ".join(f"{path.name} {path.stat().st_size / 2**20:.1f} MiB" for path in _files(folder))
    total = sum(path.stat().st_size for path in _files(folder)) / 2**20
    console.print(f"written   {folder}: {sizes}; {total:.1f} MiB in all", soft_wrap=True)


def describe(network: AlignSeg, size: tuple[int, int]) -> str:
    """One line for people, with the operations on an image of size (height, width)."""
    a = network.architecture
    needed = cost(a, size)
    return (
        f"AlignSeg, {a.backbone} backbone, {a.channels} channels, {a.num_classes} classes, "
        f"{needed.parameters / 1e6:.1f} M parameters, {needed.flops / 1e9:.1f} GFLOP at {size[0]}x{size[1]}"
    )


def read_frames(path: Path | None, most: int = FRAMES_COMPARED) -> list[UInt8Array]:
    """The pictures to compare on: a file, a few of a folder, evenly spread, or the demo scene.

    Returns (H, W, 3) uint8 RGB arrays. Raises FileNotFoundError when there are none.
    """
    path = path or DEMO_FRAME
    suffixes = {".jpg", ".jpeg", ".png"}
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"no pictures (.jpg, .png) to compare on at {path}; give --frames a folder of them")
    return [parity.read_picture(file) for file in files[:: max(1, len(files) // most)][:most]]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())
