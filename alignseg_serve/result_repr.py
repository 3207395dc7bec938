"""The repr of a segmented image, the same with and without a server: one line, and no pixels."""

from collections.abc import Sequence
from typing import Any, Final

_CLASSES_SHOWN: Final = 3


def result_repr(result: Any) -> str:
    """Return <Segmentation 960x720 by alignseg-lite 1: road 41.2 %, building 20.1 %, sky 14.0 %, 5 more classes>.

    result: a Segmentation of `alignseg_serve.client` or `alignseg_serve.segmentation`.
    """
    shares = sorted(result.classes, key=lambda entry: -entry.fraction)
    size = f"{result.width}x{result.height}"
    return f"<Segmentation {size} by {result.model} {result.version}: {_shares(shares)}>"


def _shares(largest_first: Sequence[Any]) -> str:
    shown = [f"{entry.name} {100 * entry.fraction:.1f} %" for entry in largest_first[:_CLASSES_SHOWN]]
    if (more := len(largest_first) - _CLASSES_SHOWN) > 0:
        shown.append(f"{more} more {'class' if more == 1 else 'classes'}")
    return ", ".join(shown) or "no classes"
