"""Losses: weighted sums of cross-entropy, OHEM and Lovász-softmax, on main and auxiliary logits.

Every loss takes logits, float (N, C, H, W), and labels, int64 (N, H, W) in 0..C-1 or IGNORED, and returns a scalar.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from model_export.alignseg.sampling import upsample
from training.data.labels import IGNORED

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean over labelled pixels, weighted by class; 0 (with a gradient of 0) when no pixel is labelled."""
    total = functional.cross_entropy(logits, labels, class_weights, ignore_index=IGNORED, reduction="sum")
    return total / _total_weight(labels, class_weights).clamp_min(1e-6)


def _total_weight(labels: Tensor, class_weights: Tensor | None) -> Tensor:
    kept = labels[labels != IGNORED]
    return torch.tensor(float(kept.numel())) if class_weights is None else class_weights[kept].sum()


def ohem(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    threshold: float = 0.7,
    least_kept: float = 1 / 16,
) -> Tensor:
    """Cross-entropy over hard pixels (online hard example mining, Shrivastava et al., CVPR 2016).

    Hard are the labelled pixels whose true class has a probability below `threshold`; if they are fewer than the share
    `least_kept` of the labelled pixels, the hardest up to that share. The loss is their class-weighted mean.
    """
    labelled = labels != IGNORED
    if not labelled.any():
        return logits.sum() * 0.0
    losses = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")[labelled]
    weights = torch.ones_like(losses) if class_weights is None else class_weights[labels[labelled]]
    kept = _hardest(losses.detach(), threshold, least_kept)
    return (losses[kept] * weights[kept]).sum() / weights[kept].sum()


def _hardest(losses: Tensor, threshold: float, least_kept: float) -> Tensor:
    """Mask of the hard pixels, bool (P,). A probability below `threshold` is a loss above -log(threshold)."""
    least = max(1, int(least_kept * losses.numel()))
    hard = losses > -math.log(threshold)
    if int(hard.sum()) >= least:
        return hard
    return losses >= losses.topk(least, sorted=False).values.min()


def lovasz_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Lovász extension of the Jaccard loss, mean over classes present (Berman et al., CVPR 2018, algorithm 1)."""
    labelled = labels != IGNORED
    probabilities = logits.softmax(dim=1).permute(0, 2, 3, 1)[labelled]  # (P, C)
    kept = labels[labelled]
    present = kept.bincount().nonzero().flatten().tolist()
    if not present:
        return logits.sum() * 0.0
    return torch.stack([_lovasz_of_class(probabilities[:, c], kept == c) for c in present]).mean()


def _lovasz_of_class(probability: Tensor, truth: Tensor) -> Tensor:
    """Loss of one class: errors in descending order, each times the growth of the Jaccard loss by its pixel."""
    hits = truth.to(probability.dtype)
    errors, order = (hits - probability).abs().sort(descending=True)
    return errors @ _jaccard_steps(hits[order])


def _jaccard_steps(truth: Tensor) -> Tensor:
    """Growth of the Jaccard loss as each pixel, in this order, is added to the wrongly predicted ones."""
    intersection = truth.sum() - truth.cumsum(0)
    union = truth.sum() + (1.0 - truth).cumsum(0)
    jaccard = 1.0 - intersection / union
    return torch.diff(jaccard, prepend=jaccard.new_zeros(1))


@dataclass(frozen=True)
class SegmentationLoss:
    """Weighted sum of the losses of the main logits, plus `aux_weight` times the first loss of the auxiliary logits."""

    terms: tuple[tuple[float, Loss], ...]
    aux_weight: float
    stride: int = 1  # of the pixels on both axes: 2 uses a quarter of them

    def __call__(self, logits: Tensor, aux_logits: Tensor | None, labels: Tensor) -> Tensor:
        """logits: (N, C, h, w) of any stride. labels: uint8 or int64 (N, H, W). Returns a scalar."""
        labels = labels[:, :: self.stride, :: self.stride].long()
        size = (labels.shape[1], labels.shape[2])
        full = upsample(logits.float(), size)
        total = torch.stack([weight * loss(full, labels) for weight, loss in self.terms]).sum()
        if aux_logits is not None and self.aux_weight:
            total = total + self.aux_weight * self.terms[0][1](upsample(aux_logits.float(), size), labels)
        return total


def make_loss(mix: str, aux_weight: float, class_weights: Tensor | None = None, stride: int = 1) -> SegmentationLoss:
    """Parse a sum such as `ce`, `ohem` or `ce+0.8*lovasz`. Raises ValueError that names the invalid part."""
    losses: dict[str, Loss] = {
        "ce": partial(cross_entropy, class_weights=class_weights),
        "ohem": partial(ohem, class_weights=class_weights),
        "lovasz": lovasz_softmax,
    }
    terms = []
    for part in mix.replace(" ", "").split("+"):
        match = re.fullmatch(r"(?:([0-9.]+)\*)?([a-z]+)", part)
        if match is None or match[2] not in losses:
            raise ValueError(
                f"--loss: got {part!r} in {mix!r}; expected ce, ohem, lovasz, or a sum such as ce+0.8*lovasz"
            )
        terms.append((float(match[1] or 1.0), losses[match[2]]))
    return SegmentationLoss(tuple(terms), aux_weight, stride)
