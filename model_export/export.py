"""`alignseg export`: exports a checkpoint into a model folder and prints each step."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint
from model_export.flops import cost
from model_export.model_folder import provenance, writer
from model_export.onnx_export import calibration as int8_calibration
from model_export.onnx_export import parity
from service.types import UInt8Array
from service.web import SCENE

# Landscape, portrait, square and wide: each image is served in the bucket in which it keeps most of its pixels.
# One more than a multiple of 16, so that the corners of the maps at 1/4, 1/8 and 1/16 lie on those of the image, as
# resizing with aligned corners assumes (training/evaluation/inference_modes.py). 360x480 itself costs 0.7 mIoU.
DEFAULT_BUCKETS = ((369, 481), (481, 369), (417, 417), (289, 609))
# Of the size of each data set's images: a network segments best at the scale of its training.
BUCKETS = {
    "camvid": DEFAULT_BUCKETS,
    "cityscapes": ((1025, 2049), (1025, 1361), (1025, 1025), (1361, 1025)),  # 1024x2048
    "ade20k": ((513, 689), (689, 513), (593, 593), (433, 865)),  # the shorter side is 512 or more
}
FRAMES_COMPARED = 3


def run(
    source: Path,
    folder: Path,
    console: Console,
    *,
    data: str | None,
    classes: Path | None,
    frames: Path | None,
    buckets: Sequence[tuple[int, int]] | None,
    half: bool,
    calibration: Path | None = None,
    with_checkpoint: bool = True,
    with_inlined: bool = False,
) -> None:
    """Export checkpoint `source` into model folder `folder` and print the comparison with PyTorch.

    data, classes: see provenance.of. frames: image or folder to compare on; None: the demo scene. buckets: (height,
    width); None: those of the data set. half: store weights as float16. calibration: folder of typical images, for
    int8; None: no int8. with_checkpoint, with_inlined: see writer.write.
    Raises CheckpointError, ParityError, ValueError or FileNotFoundError; `folder` then stays as it was.
    """
    console.print(f"load      {source}")
    network = checkpoint.load(source)
    metadata = checkpoint.read_metadata(source) if source.suffix == ".safetensors" else {}
    architecture = network.architecture
    origin = provenance.of(metadata, data, classes, architecture.num_classes)
    used = buckets or BUCKETS.get(data or metadata.get("data", ""), DEFAULT_BUCKETS)
    shown = ", ".join(f"{height}x{width}" for height, width in used)
    console.print(f"sizes     {shown}: every image is segmented at one of these; --size sets others", soft_wrap=True)
    description = describe(network, used[0])
    images = read_frames(frames)
    typical_images = read_frames(calibration, most=int8_calibration.IMAGES) if calibration else []
    console.print(f"export    {description}; compared with PyTorch on {len(images)} images ...", soft_wrap=True)
    rows = writer.write(
        folder,
        network,
        origin,
        used,
        images,
        description=description,
        model_version=datetime.now(UTC).strftime("%Y.%m.%d"),
        metadata={key: value for key, value in metadata.items() if key not in {"format", "architecture"}},
        half=half,
        calibration=typical_images,
        with_checkpoint=with_checkpoint,
        with_inlined=with_inlined,
    )
    console.print(parity.table(rows), highlight=False)
    sizes = ", ".join(f"{path.name} {path.stat().st_size / 2**20:.1f} MiB" for path in _files(folder))
    total = sum(path.stat().st_size for path in _files(folder)) / 2**20
    console.print(f"written   {folder}: {sizes}; {total:.1f} MiB in total", soft_wrap=True)


def describe(network: AlignSeg, size: tuple[int, int]) -> str:
    """The network in one line: backbone, channels, classes, parameters, operations for an image of (height, width)."""
    a = network.architecture
    counted = cost(a, size)
    return (
        f"AlignSeg, {a.backbone} backbone, {a.channels} channels, {a.num_classes} classes, "
        f"{counted.parameters / 1e6:.1f} M parameters, {counted.flops / 1e9:.1f} GFLOP at {size[0]}x{size[1]}"
    )


def read_frames(path: Path | None, most: int = FRAMES_COMPARED) -> list[UInt8Array]:
    """Read an image file, or at most `most` images of a folder, evenly chosen, or the demo scene.

    Returns (H, W, 3) uint8 RGB arrays. Raises FileNotFoundError when there is none.
    """
    path = path or SCENE
    suffixes = {".jpg", ".jpeg", ".png"}
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"{path} has no images; expected a .jpg, .jpeg or .png file or a folder of them")
    return [parity.read_image(file) for file in files[:: max(1, len(files) // most)][:most]]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())
