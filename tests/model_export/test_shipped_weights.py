"""The shipped weights: complete, described correctly, and the same network in both files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model_export.checkpoints import checkpoint
from model_export.model_folder import writer
from model_export.onnx_export import parity
from model_export.onnx_export.serving_module import ServingModule
from service.engines.onnxruntime.engine import OnnxRuntimeEngine
from service.model_folder import manifest as manifests
from service.settings import REPOSITORY
from service.types import UInt8Array
from service.web import SCENE

WEIGHTS = REPOSITORY / "weights"
CAMVID = REPOSITORY.parent / "shared" / "camvid" / "val"
FOLDERS = sorted(path.parent for path in WEIGHTS.glob("*/model.json"))
BUDGET = 16 * 2**20


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.param  # type: ignore[no-any-return]


def test_the_default_model_is_shipped() -> None:
    assert WEIGHTS / "alignseg-lite" in FOLDERS


def test_files_match_the_manifest(folder: Path) -> None:
    manifest = manifests.load(folder)
    assert manifest.name == folder.name
    for role in manifest.files:
        manifests.verified_file(folder, manifest, role)
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) <= BUDGET
    assert "non-commercial" in manifest.terms


def test_pytorch_and_onnx_runtime_compute_the_same_from_the_folder(folder: Path) -> None:
    manifest = manifests.load(folder)
    module = ServingModule(checkpoint.load(writer.checkpoint_of(folder, manifest)))
    engine = OnnxRuntimeEngine(manifests.verified_file(folder, manifest, "onnx"))
    scene = parity.read_image(SCENE)
    assert agreement(module, engine, scene) >= parity.PIXELS_AGREEING


@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"real frames are in {CAMVID}, which outside users do not have")
def test_class_maps_of_real_frames_agree_with_the_labels() -> None:
    folder = WEIGHTS / "alignseg-lite"
    engine = OnnxRuntimeEngine(manifests.verified_file(folder, manifests.load(folder), "onnx"))
    right = labelled = 0
    for path in sorted((CAMVID / "images").glob("*.jpg"))[::13]:
        with Image.open(CAMVID / "labels" / f"{path.stem}.png") as image:
            labels = np.asarray(image)
        ids = engine.infer(parity.read_image(path)[None]).ids[0]
        right += int((ids == labels)[labels < 11].sum())
        labelled += int((labels < 11).sum())
    assert right / labelled > 0.8


def agreement(module: ServingModule, engine: OnnxRuntimeEngine, image: UInt8Array) -> float:
    with torch.inference_mode():
        expected = module(torch.tensor(image)[None])[0].numpy()
    return float((engine.infer(image[None]).ids == expected).mean())
