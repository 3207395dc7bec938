"""An image through HTTP to the GPU and back."""

from pathlib import Path

import httpx
import numpy as np
import pytest

from model_export import build_engine
from service.app import create_app
from service.engines.onnxruntime.engine import OnnxRuntimeEngine
from service.engines.selection import open_engine
from service.model_folder import manifest as manifests
from service.settings import Settings
from tests.support.fake_engine import opened as read_png

SCENE = Path(__file__).parents[1] / "data" / "scene.jpg"


async def mask(folder: Path, engine: object) -> np.ndarray:
    app = create_app(Settings(model=folder), [engine], manifests.load(folder))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        headers = {"Content-Type": "image/jpeg", "Accept": "image/png"}
        response = await client.post("/segment", content=SCENE.read_bytes(), headers=headers)
        assert response.status_code == 200, response.text
        return np.asarray(read_png(response.content))


async def test_the_gpus_mask_agrees_with_the_cpus(folder: Path) -> None:
    if build_engine.main([str(folder), "--precision", "fp16"]) != 0:
        pytest.skip("no TensorRT engine can be built here")
    on_gpu = open_engine(Settings(model=folder), manifests.load(folder))
    assert on_gpu.name.startswith("tensorrt")
    expected = await mask(folder, OnnxRuntimeEngine(folder / "model.onnx"))
    assert (await mask(folder, on_gpu) == expected).mean() > 0.995
