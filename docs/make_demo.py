"""Makes the README's picture: the drawn scene beside its classes, by the shipped weights.

python docs/make_demo.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

from service.engines.onnxruntime.engine import ROLE, OnnxRuntimeEngine
from service.imaging.decode import decode
from service.imaging.letterbox import letterbox, unletterbox_ids
from service.model_folder import manifest as manifests
from service.settings import REPOSITORY

DOCS = Path(__file__).parent
ALPHA = 0.6
GAP = 12  # pixels between the two


def main() -> None:
    """Write docs/demo.jpg."""
    folder = REPOSITORY / "weights" / "alignseg-lite"
    manifest = manifests.load(folder)
    engine = OnnxRuntimeEngine(manifests.verified_file(folder, manifest, ROLE))
    scene = decode((DOCS / "scene.png").read_bytes(), max_pixels=10**7)
    prepared = letterbox(scene, manifest.input.buckets)
    ids = unletterbox_ids(engine.infer(prepared.pixels[None]).ids[0], prepared)
    overlay = np.rint((1 - ALPHA) * scene + ALPHA * manifest.palette[ids]).astype(np.uint8)
    gap = np.full((scene.shape[0], GAP, 3), 255, dtype=np.uint8)
    picture = Image.fromarray(np.hstack([scene, gap, overlay]))
    picture.resize((picture.width * 2 // 3, picture.height * 2 // 3), Image.Resampling.LANCZOS).save(
        DOCS / "demo.jpg", quality=90
    )


if __name__ == "__main__":
    main()
