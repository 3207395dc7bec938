"""Cost of each response format: CPU milliseconds and bytes per megapixel, beside alternatives that were tried.

    python -m benchmarks.model.codecs [--note "..."]

One thread; the best of several runs, in CPU time, so that a busy machine matters little. The image is a rendered street
of 1440x1080 whose class map comes from 480x360, as the network's does.
"""

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from PIL import Image

from benchmarks.harness import report
from service.imaging.decode import decode
from service.imaging.letterbox import letterbox, unletterbox, unletterbox_ids
from service.imaging.model_input import ImageLimits, open_image
from service.model_folder.manifest import ClassEntry, Manifest
from service.rendering import formats, images, media_types
from service.rendering.class_stats import summarize
from service.rendering.options import RenderOptions
from service.rendering.polygons import trace
from service.rendering.rle import encode_rle
from service.rendering.segmentation import Segmentation
from service.types import UInt8Array
from training.synthetic.render import DEMO_SEED, render

BUCKET: Final = (360, 480)
SIZE: Final = (1080, 1440)
ROUNDS: Final = 7
LARGE: Final = (3000, 4000)  # a phone's 12 megapixels
Work = Callable[[], Any]


def scene() -> Segmentation:
    """A street, its class map, and a confidence that falls towards the edges of classes."""
    pixels, _ = render(DEMO_SEED, SIZE)
    _, labels = render(DEMO_SEED, BUCKET)
    prepared = letterbox(pixels, [BUCKET])
    edges = np.gradient(labels.astype(np.float32))
    soft = Image.fromarray(np.hypot(*edges).clip(0, 1)).reduce(4).resize(BUCKET[::-1], Image.Resampling.BICUBIC)
    confidence = (255 - 130 * np.asarray(soft).clip(0, 1)).astype(np.uint8)
    rng = np.random.default_rng(0)
    classes = tuple(ClassEntry(name=f"class {i}", color=tuple(rng.integers(0, 256, 3).tolist())) for i in range(11))
    model = Manifest.model_construct(name="benchmark", version="1", classes=classes)
    ids, sure = unletterbox_ids(labels, prepared), unletterbox(confidence, prepared)
    return Segmentation(model, pixels, ids, {}, time.perf_counter(), sure)


def responses(seg: Segmentation) -> dict[str, Work]:
    """Whole response bodies."""
    whole, seg = seg, replace(seg, confidence=None)
    works: dict[str, Work] = {
        f"{media_types.JSON} confidence": lambda: formats.render(media_types.JSON, RenderOptions(), whole)
    }
    for kind in media_types.ALL:
        works[kind] = partial(formats.render, kind, RenderOptions(), seg)
    for masks in ("rle", "polygons", "none"):
        works[f"{media_types.JSON} masks={masks}"] = partial(
            formats.render, media_types.JSON, RenderOptions(masks=masks), seg
        )
    works[f"{media_types.PNG} classes=1,5"] = lambda: formats.render(
        media_types.PNG, RenderOptions(classes=("1", "5")), seg
    )
    works[f"{media_types.JPEG} classes=1,5"] = lambda: formats.render(
        media_types.JPEG, RenderOptions(classes=("1", "5")), seg
    )
    return works


def steps(seg: Segmentation) -> dict[str, Work]:
    """Single steps: decoding, and the parts of responses."""
    ids, palette, pixels = seg.ids, seg.model.palette, seg.image
    present = np.unique(ids).tolist()
    jpeg, prepared = encoded(pixels, "JPEG", quality=90), letterbox(pixels, [BUCKET])
    small = np.ascontiguousarray(ids[:: SIZE[0] // BUCKET[0], :: SIZE[1] // BUCKET[1]])
    assert seg.confidence is not None  # noqa: S101
    confidence = seg.confidence
    return {
        "decode and letterbox a JPEG": lambda: open_image(jpeg, [BUCKET], ImageLimits(10**9)),
        "class map to the image's size": lambda: unletterbox_ids(small, prepared),
        "class statistics": lambda: summarize(ids, seg.model),
        "class statistics with confidence": lambda: summarize(ids, seg.model, confidence),
        "RLE of all classes": lambda: encode_rle(ids, present),
        "polygons of all classes": lambda: trace(ids, present),
        "overlay, not encoded": lambda: images.overlay(pixels, ids, palette, 0.5),
        "overlay PNG": lambda: images.overlay_png(pixels, ids, palette),
        "confidence PNG": lambda: images.confidence_png(confidence),
        "one class's mask, 8 bits": lambda: images.class_mask_png(ids, present[0]),
        "one class's mask, 1 bit": lambda: images.class_bitmap_png(ids, present[0]),
        "one class's overlay": lambda: images.class_overlay_png(ids, present[0], palette),
    }


def large(seg: Segmentation) -> dict[str, Work]:
    """Decoding and letterboxing an image of size LARGE, in one step and, as an alternative, in two."""
    pixels = np.asarray(Image.fromarray(seg.image).resize(LARGE[::-1], Image.Resampling.BICUBIC))
    jpeg = encoded(pixels, "JPEG", quality=90)
    return {
        "decode and letterbox a JPEG": lambda: open_image(jpeg, [BUCKET], ImageLimits(10**9)),
        "alternative: decode by itself": lambda: decode(jpeg, 10**9),
        "alternative: letterbox by itself": lambda: letterbox(pixels, [BUCKET]),
    }


def alternatives(seg: Segmentation) -> dict[str, Work]:
    """Earlier implementations, and ones that were tried and not taken."""
    ids, palette, pixels = seg.ids, seg.model.palette, seg.image
    assert seg.confidence is not None  # noqa: S101
    confidence = seg.confidence
    tint = np.zeros((256, 3), dtype=np.uint8)
    tint[: len(palette)] = palette // 2
    half = (np.arange(256) // 2).astype(np.uint8)
    drawn = images.overlay(pixels, ids, palette, 0.5)
    jpeg = encoded(pixels, "JPEG", quality=90)
    clear = np.zeros((256, 4), dtype=np.uint8)
    clear[0] = 255
    return {
        "decode a JPEG by itself": lambda: decode(jpeg, 10**9),
        "letterbox by itself": lambda: letterbox(pixels, [BUCKET]),
        "class statistics by a mask a class": lambda: statistics_by_masks(ids),
        "overlay by NumPy's look-up": lambda: half[pixels] + tint[ids],
        "overlay JPEG 4:4:4": lambda: encoded(drawn, "JPEG", quality=85, subsampling="4:4:4"),
        "overlay JPEG, optimized": lambda: encoded(drawn, "JPEG", quality=85, optimize=True),
        "overlay WebP, method 1": lambda: encoded(drawn, "WEBP", quality=80, method=1),
        "overlay WebP, method 4 (default)": lambda: encoded(drawn, "WEBP", quality=80, method=4),
        "confidence PNG by Pillow": lambda: encoded(confidence, "PNG", compress_level=1),
        "one class's mask by Pillow": lambda: encoded((ids == 0) * np.uint8(255), "PNG", compress_level=1),
        "one class's overlay as RGBA": lambda: encoded(clear[ids], "PNG", compress_level=1),
    }


def statistics_by_masks(ids: UInt8Array) -> list[tuple[int, ...]]:
    """The id and a box around each class's mask."""
    boxes: list[tuple[int, ...]] = []
    for i in np.flatnonzero(np.bincount(ids.ravel(), minlength=256)):
        mask = ids == i
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        boxes.append((int(i), int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])))
    return boxes


def encoded(image: UInt8Array | Image.Image, kind: str, **options: Any) -> bytes:
    """Encode with Pillow."""
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def measure(work: Work, size: tuple[int, int]) -> dict[str, float]:
    """cpu_ms_per_mp: of the best round. bytes_per_mp: where the result is bytes."""
    megapixels = size[0] * size[1] / 1e6
    times = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        result = work()
        times.append(time.thread_time() - began)
    weight = {"bytes_per_mp": round(len(result) / megapixels)} if isinstance(result, bytes) else {}
    return {"cpu_ms_per_mp": round(min(times) * 1e3 / megapixels, 2), **weight}


def main() -> None:
    """Measure, print a table, write the report."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--note", default="", help="a remark on the machine, kept with the result")
    note = arguments.parse_args().note
    seg = scene()
    results: dict[str, Any] = {}
    groups = {
        "responses": responses(seg),
        "steps": steps(seg),
        "alternatives": alternatives(seg),
        "12_megapixels": large(seg),
    }
    for title, works in groups.items():
        size = LARGE if title == "12_megapixels" else SIZE
        print(f"\n{f'{title}, {size[1]}x{size[0]}':34} CPU ms/MP   bytes/MP")
        results[title] = {name: measure(work, size) for name, work in works.items()}
        for name, row in results[title].items():
            print(f"{name:34} {row['cpu_ms_per_mp']:9.2f} {row.get('bytes_per_mp', ''):>10}")
    report("codecs", {"note": note, "size": list(SIZE), "large_size": list(LARGE), "bucket": list(BUCKET), **results})


if __name__ == "__main__":
    main()
