"""Predictors: anything that turns a picture into a class map, so that one evaluation measures them all.

A predictor takes a picture, uint8 (H, W, 3) RGB, and returns class ids, uint8 (H, W), at the same size.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from model_export import checkpoint
from model_export.alignseg import AlignSeg
from model_export.model_folder import checkpoint_of
from service import manifest as manifests
from service.contracts import Engine
from service.prepare import prepare, restore
from training.protocols import Look, on_raster, whole

Bytes = NDArray[np.uint8]
Predictor = Callable[[Bytes], Bytes]


class PredictionError(RuntimeError):
    """A server did not answer with a class map; the message says what it answered."""


def load_network(path: Path) -> AlignSeg:
    """The network of a checkpoint, or of a model folder's, on the CPU, float32, in eval mode.

    Raises what checkpoint.load raises, and service.errors.ManifestError for a folder that is none or is damaged.
    """
    if path.is_dir():
        path = checkpoint_of(path, manifests.load(path))
    return checkpoint.load(path)


def with_network(network: AlignSeg, look: Look | None = None) -> Predictor:
    """Through PyTorch, on the device the network is on; whole pictures unless another look (protocols.py) is given."""
    look = look or on_raster(whole(network))

    @torch.inference_mode()
    def predict(picture: Bytes) -> Bytes:
        network.eval()
        device = next(network.parameters()).device
        scores = look(network.normalise(torch.tensor(picture)[None].to(device)))
        ids: Bytes = scores[0].argmax(0).to(torch.uint8).cpu().numpy()
        return ids

    return predict


def with_engine(engine: Engine, buckets: Sequence[tuple[int, int]]) -> Predictor:
    """Through an engine as the service drives it: into the best bucket (H, W), and back to the picture's own size."""

    def predict(picture: Bytes) -> Bytes:
        prepared = prepare(picture, buckets)
        return restore(engine.infer(prepared.pixels[None]).ids[0], prepared).ids

    return predict


def with_server(url: str, api_key: str | None = None, timeout_s: float = 60.0) -> Predictor:
    """Through a running server: pictures travel as PNG, which loses nothing, and masks come back as indexed PNG.

    api_key: for a server that wants one. Raises ValueError when `url` is none, then PredictionError for any answer that
    is no class map.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"server: got {url!r}, expected a URL as http://localhost:8000")
    connection = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    path = parts.path.rstrip("/") + "/segment"
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"

    def predict(picture: Bytes) -> Bytes:
        http = connection(parts.hostname or "", parts.port, timeout=timeout_s)
        try:
            http.request("POST", path, _png(picture), headers)
            answer = http.getresponse()
            return _class_map(answer.status, answer.read(), url)
        finally:
            http.close()

    return predict


def _png(picture: Bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _class_map(status: int, body: bytes, url: str) -> Bytes:
    if status != 200:
        raise PredictionError(f"{url} answered {status}, expected 200 and a PNG: {body[:500].decode(errors='replace')}")
    with Image.open(io.BytesIO(body)) as mask:
        if mask.mode not in {"P", "L"}:
            raise PredictionError(f"{url} answered with a picture of mode {mask.mode}, expected an indexed PNG of ids")
        return np.asarray(mask)
