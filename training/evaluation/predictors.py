"""Predictors: from an image to a class map, by a network, an engine or a server, for one evaluation of them all.

A predictor takes an image, uint8 (H, W, 3) RGB, and returns class ids, uint8 (H, W), of the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint
from model_export.model_folder.writer import checkpoint_of
from service.imaging.model_input import ImageLimits, open_image
from service.imaging.tile_plan import AUTO_MAX_TILES
from service.model_folder import manifest as manifests
from service.types import Engine
from training.evaluation.inference_modes import Predict, pad_to_raster, whole_image

Bytes = NDArray[np.uint8]
Predictor = Callable[[Bytes], Bytes]


class PredictionError(RuntimeError):
    """A server could not be reached or returned an error; the message has its description."""


def load_network(path: Path) -> AlignSeg:
    """The network of a checkpoint, or of a model folder's checkpoint, on the CPU, float32, in eval mode.

    Raises what checkpoint.load raises, and service.errors.ManifestError for an invalid model folder.
    """
    if path.is_dir():
        path = checkpoint_of(path, manifests.load(path))
    return checkpoint.load(path)


def with_network(network: AlignSeg, predict: Predict | None = None) -> Predictor:
    """PyTorch, on the network's device. predict: an inference mode of the network; default: the whole image."""
    predict_scores = predict or pad_to_raster(whole_image(network))

    @torch.inference_mode()
    def predict_ids(image: Bytes) -> Bytes:
        network.eval()
        device = next(network.parameters()).device
        scores = predict_scores(network.normalise(torch.tensor(image)[None].to(device)))
        ids: Bytes = scores[0].argmax(0).to(torch.uint8).cpu().numpy()
        return ids

    return predict_ids


def with_engine(engine: Engine, buckets: Sequence[tuple[int, int]]) -> Predictor:
    """An engine, as in serving: an image is fitted into a bucket (H, W), a panorama is cut into tiles."""

    def predict_ids(image: Bytes) -> Bytes:
        limits = ImageLimits(image.shape[0] * image.shape[1], AUTO_MAX_TILES)
        _, model_input = open_image(image, buckets, limits, tile="auto")
        tensors = (model_input.tensor(index) for index in range(model_input.count))
        return model_input.assemble_ids([engine.infer(tensor[None]).ids[0] for tensor in tensors])

    return predict_ids


@contextmanager
def with_server(url: str, api_key: str | None = None) -> Iterator[Predictor]:
    """A running server; connections are closed on exit. Images are sent as PNG, which is lossless.

    Raises ValueError when `url` is not an HTTP URL, PredictionError when httpx is missing or, from the predictor, when
    a request fails.
    """
    try:
        from alignseg_serve.client import Client, ClientError  # noqa: PLC0415 - httpx is not in the extra `train`
    except ImportError as error:
        raise PredictionError(f"{error}. --server needs httpx: pip install -e '.[client]'") from error

    def predict_ids(image: Bytes) -> Bytes:
        try:
            return client.segment(image).mask
        except ClientError as error:
            raise PredictionError(str(error)) from error

    with Client(url, api_key=api_key) as client:
        yield predict_ids
