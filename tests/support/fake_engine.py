"""A model without a network: deterministic, immediate, and able to fail in the ways that real ones do."""

import io
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from PIL import Image

from service.app import create_app
from service.model_folder.manifest import Manifest
from service.settings import Settings
from service.types import Inference, UInt8Array

BUCKETS = ((16, 24), (24, 16))
COLORS = {"road": (128, 64, 128), "sky": (128, 128, 128), "tree": (128, 128, 0), "car": (64, 0, 128)}


class FakeEngine:
    """The id of a pixel is its red value modulo the number of classes, its confidence the green value.

    before: called with each batch in the engine's thread; may raise or block.
    batches: shapes of the batches so far, warm-up included.
    """

    name = "fake"
    has_confidence = True

    def __init__(self, max_batch: int = 4, before: Callable[[UInt8Array], object] = lambda batch: None) -> None:
        self.max_batch = max_batch
        self.before = before
        self.batches: list[tuple[int, ...]] = []
        self.closed = False

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        self.batches.append(batch.shape)
        self.before(batch)
        return Inference(batch[..., 0] % len(COLORS), batch[..., 1].copy() if with_confidence else None)

    def close(self) -> None:
        self.closed = True


class Gate:
    """A `before` that blocks the engine in a call until `opened` is set."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, batch: UInt8Array) -> None:
        self.entered.set()
        assert self.opened.wait(120), "the test never opened the gate"


def manifest(buckets: tuple[tuple[int, int], ...] = BUCKETS, files: dict[str, Any] | None = None) -> Manifest:
    return Manifest.model_validate(
        {
            "name": "fake",
            "version": "1",
            "description": "id = red % 4",
            "architecture": {
                "backbone": "none", "num_classes": 4, "channels": 1, "sampling": "standard", "aux_head": False,
            },
            "classes": [{"name": n, "color": c} for n, c in COLORS.items()],
            "input": {"buckets": buckets},
            "preprocessing": {"channel_order": "RGB", "mean": (0, 0, 0), "std": (1, 1, 1)},
            "files": files or {},
            "trained_on": "nothing",
            "terms": "none",
            "built_by": "tests/support/fake_engine.py",
            "built_with": {},
        }
    )  # fmt: skip


def striped(height: int = 16, width: int = 24) -> UInt8Array:
    """(H, W, 3): red is 0..3 by quarters of the columns, so that each class has a quarter of the image."""
    pixels = np.full((height, width, 3), 200, dtype=np.uint8)
    pixels[..., 0] = np.arange(width) * 4 // width
    return pixels


def encoded(pixels: UInt8Array, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@asynccontextmanager
async def serving(
    engine: FakeEngine | None = None, **settings: Any
) -> AsyncGenerator[tuple[httpx.AsyncClient, FastAPI], None]:
    """A client of an application with a fake engine, warmed up; drained at the end."""
    app = create_app(Settings(**{"model_poll_s": 0, **settings}), [engine or FakeEngine()], manifest())
    async with serving_app(app) as client:
        yield client, app


@asynccontextmanager
async def serving_app(app: FastAPI) -> AsyncGenerator[httpx.AsyncClient, None]:
    """A client of a running application."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client
