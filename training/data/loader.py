"""Training batches: a function of the seed and the step, so that a resumed run gets the same batches.

A view is an augmented image, identified by (epoch, index). The sampler yields the ids of one batch after another from
any step on; the data set creates the view with a generator seeded by (seed, epoch, index), in any worker process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from training.data.augment import Augmentation
from training.data.datasets import Dataset, Pair
from training.interruption import ignore_stop

Bytes = NDArray[np.uint8]
ViewId = tuple[int, int]
Scene = Callable[[int], tuple[Bytes, Bytes]]


@dataclass
class Views(TorchDataset[tuple[Tensor, Tensor]]):
    """Augmented images of a data set; a share of them is replaced by rendered scenes.

    views[epoch, index] is an image, uint8 (H, W, 3) RGB, and its labels, uint8 (H, W).
    """

    dataset: Dataset
    pairs: Sequence[Pair]
    augmentation: Augmentation
    seed: int
    scene: Scene | None = None
    scene_share: float = 0.0

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, view_id: ViewId) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, *view_id))
        image, labels = self._source(view_id[1], rng)
        view, truth = self.augmentation(image, labels, rng)
        return torch.from_numpy(view), torch.from_numpy(truth)

    def _source(self, index: int, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
        if self.scene is not None and rng.random() < self.scene_share:
            return self.scene(int(rng.integers(2**31)))
        return self.dataset.read(self.pairs[index])


@dataclass
class Batches(Sampler[list[ViewId]]):
    """Endless batches of view ids from `first_step` on. Each epoch is shuffled and drops its incomplete last batch.

    In data-parallel training, process `rank` of `members` takes every `members`-th view of each batch.
    """

    pictures: int
    batch: int
    seed: int
    first_step: int = 0
    rank: int = 0
    members: int = 1

    def __post_init__(self) -> None:
        if self.batch > self.pictures:
            raise ValueError(
                f"--batch: got {self.batch}; expected at most {self.pictures}, the number of training images"
            )
        if self.batch % self.members:
            raise ValueError(
                f"--batch: got {self.batch}; expected a multiple of {self.members}, the number of processes"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Complete batches in one pass over the images."""
        return self.pictures // self.batch

    def __iter__(self) -> Iterator[list[ViewId]]:
        step = self.first_step
        while True:
            yield self._of(step)
            step += 1

    def _of(self, step: int) -> list[ViewId]:
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.pictures)
        batch = order[position * self.batch : (position + 1) * self.batch]
        return [(epoch, int(i)) for i in batch[self.rank :: self.members]]


def load_batches(views: Views, batches: Batches, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless images uint8 (N, H, W, 3) and labels uint8 (N, H, W), prepared by `workers` processes; 0: by this one."""
    return iter(DataLoader(views, batch_sampler=batches, num_workers=workers, worker_init_fn=ignore_stop))
