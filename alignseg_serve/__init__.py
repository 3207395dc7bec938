"""Segment street scenes with AlignSeg.

from alignseg_serve import segment

result = segment("street.jpg")
result.mask  # (H, W) uint8 class ids

`segment` and `Segmenter` run the model in this process; `alignseg_serve.client` uses a server. Importing this package
loads neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignseg_serve.segmentation.result import Segmentation
    from alignseg_serve.segmentation.segmenter import Segmenter, segment

__all__ = ["Segmentation", "Segmenter", "segment"]

_MODULES = {"Segmentation": "result", "Segmenter": "segmenter", "segment": "segmenter"}


def __getattr__(name: str) -> Any:  # PEP 562: loaded when first used
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.segmentation.{_MODULES[name]}"), name)
