"""An image through HTTP to the GPU and back."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")

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


def test_the_gpus_mask_agrees_with_the_cpus(engine_folder: Path) -> None:
    on_gpu = open_engine(Settings(model=engine_folder), manifests.load(engine_folder))
    assert on_gpu.name.startswith("tensorrt")
    expected = asyncio.run(mask(engine_folder, OnnxRuntimeEngine(engine_folder / "model.onnx")))
    assert (asyncio.run(mask(engine_folder, on_gpu)) == expected).mean() > 0.995
