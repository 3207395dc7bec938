"""Data sets of a few small pictures, each in its official layout."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 64)


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)
    return path


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def labels(seed: int, values: list[int]) -> np.ndarray:
    """Blocks of 8x8 pixels, so that something can be learnt."""
    blocks = np.random.default_rng(seed).choice(values, (SIZE[0] // 8, SIZE[1] // 8))
    return np.kron(blocks, np.ones((8, 8))).astype(np.uint8)


def camvid(root: Path, pictures: int = 4) -> Path:
    for split, count in (("train", pictures), ("val", 2)):
        for i in range(count):
            write(root / split / "images" / f"{i:04}.jpg", picture(i))
            write(root / split / "labels" / f"{i:04}.png", labels(i, list(range(12))))
    return root


def camvid_segnet(root: Path) -> Path:
    for split in ("train", "val", "test"):
        write(root / split / "0001TP_006690.png", picture(1))
        write(root / f"{split}annot" / "0001TP_006690.png", labels(1, list(range(12))))
    return root


def cityscapes(root: Path, pictures: int = 2) -> Path:
    for split, city in (("train", "aachen"), ("val", "lindau")):
        for i in range(pictures):
            stem = f"{city}_{i:06}_000019"
            write(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", picture(i))
            write(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", labels(i, list(range(34))))
    return root


def ade20k(root: Path) -> Path:
    for split, stem in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        write(root / "images" / split / f"{stem}.jpg", picture(1))
        write(root / "annotations" / split / f"{stem}.png", labels(1, list(range(151))))
    return root
