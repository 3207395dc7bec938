"""A network as torch.onnx exports it without this project, and runtimes that run it with their default options."""

import logging
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from model_export.onnx_export.serving_module import ServingModule
from service.engines.openvino.engine import OpenVinoEngine
from service.types import CLASS_MAP, LOGITS, Inference, Size, UInt8Array


def export_plain(network: torch.nn.Module, path: Path, size: Size) -> None:
    """torch.onnx.export of the network as it is, for one image of (height, width), without this project's rewrites.

    With dynamic sizes the traced SAME padding of an EfficientNet would be that of the example's size.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own deprecations
        program = torch.onnx.export(
            ServingModule(network),  # type: ignore[arg-type]
            (torch.zeros(1, *size, 3, dtype=torch.uint8),),
            dynamo=True,
            opset_version=18,
            input_names=["pictures"],
            output_names=[CLASS_MAP, LOGITS],
            verbose=False,
        )
    assert program is not None  # noqa: S101
    program.save(path)


class PlainExport:
    """ONNX Runtime as its documentation shows it; the product's engine turns thread spinning off."""

    name, max_batch, has_confidence = "plain export", 1, False

    def __init__(self, model: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        """Class maps only."""
        return Inference(self._session.run([CLASS_MAP], {"pictures": batch})[0])

    def close(self) -> None:
        """Nothing to release."""


class PlainOpenVino(OpenVinoEngine):
    """OpenVINO with its own precision hint, and none of the product's rewrites."""

    def _read(self) -> Any:
        return self._core.read_model(self._path)
