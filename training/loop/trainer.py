"""A training run: the network, its optimiser and moving average; steps, validation, saving and resuming."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint
from training.config import Config
from training.data import hold_out
from training.data.augment import Augmentation
from training.data.class_weights import class_shares, class_weights
from training.data.datasets import DATASETS, Pair, evenly
from training.data.loader import Batches, Views, load_batches
from training.evaluation.confusion import Confusion
from training.evaluation.inference_modes import pad_to_raster, whole_image
from training.evaluation.measure import evaluate
from training.evaluation.predictors import with_network
from training.interruption import Stopped
from training.loop import precision, pretrained
from training.loop.distributed import ProcessGroup
from training.loop.ema import MovingAverage
from training.loop.losses import make_loss
from training.loop.optim import learning_rate, make_optimizer
from training.loop.pretrained import Fit
from training.loop.run_state import load_state, save_state
from training.synthetic.render import render


class Trainer:
    """One run: `step` of `steps` are done."""

    def __init__(self, config: Config, device: torch.device, team: ProcessGroup | None = None) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device, self.team = config, device, team or ProcessGroup()
        self.bf16, self.precision = precision.choose(config.amp, device.type, config.backbone)
        self.dataset = DATASETS[config.data]
        self.train_pairs, self.val_pairs = hold_out.train_and_val(
            self.dataset, Path(config.root), config.train_on, config.hold_out
        )
        self.step = 0
        self.best = -1.0  # below any mIoU, so that the first evaluated weights are kept
        self.losses: list[float] = []  # of the epoch so far
        self.network = self._network()
        self.average = MovingAverage(self.network, config.ema) if config.ema else None
        self.optimizer = make_optimizer(self.network, config)
        self.loss = make_loss(config.loss, config.aux_weight, self._class_weights(), config.loss_stride)

    def _network(self) -> AlignSeg:
        c = self.config
        network = AlignSeg(cast(Any, c.backbone), self.dataset.num_classes, c.channels or None)
        if c.align != "fa+cm":  # the ablation compares networks that start from the same weights
            a = replace(network.architecture, align_fa="fa" in c.align, align_cm="cm" in c.align)
            state, network = network.state_dict(), AlignSeg.from_architecture(a)
            network.load_state_dict(state, strict=False)
        network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self._in_training_mode(network)

    def _in_training_mode(self, network: AlignSeg) -> AlignSeg:
        """Frozen parts keep their weights and use their stored statistics."""
        network.train()
        if self.config.freeze:
            for part in (network.backbone.stem, *network.backbone.stages[: self.config.freeze]):
                part.eval().requires_grad_(False)
        return network

    def start_from(self, path: Path) -> Fit:
        """Replace the random weights by those of a file. Raises what pretrained.load raises."""
        fit = pretrained.load(self.network, path, self.config.init_partly)
        if self.average:
            self.average.network.load_state_dict(self.network.state_dict())
        return fit

    def _class_weights(self) -> Tensor | None:
        if self.config.class_weights == "none":
            return None
        shares = class_shares(self.dataset, self.train_pairs)
        return torch.from_numpy(class_weights(shares, self.config.class_weights)).to(self.device)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the training images."""
        return self._batches().steps_per_epoch

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.config.iterations or self.config.epochs * self.steps_per_epoch

    @property
    def rate(self) -> float:
        """The learning rate of the current step."""
        return learning_rate(self.step, self.steps, self.config.lr, self.config.warmup)

    def _batches(self) -> Batches:
        c, team = self.config, self.team
        return Batches(len(self.train_pairs), c.batch, c.seed, self.step, team.rank, team.size)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the remaining steps: images uint8 (N, H, W, 3) and labels uint8 (N, H, W)."""
        c = self.config
        augmentation = Augmentation(
            c.crop_size, c.scale_range, c.stretch, 0.5, c.colour, c.hue, c.blur, corrupt=c.corrupt
        )
        scene = render if c.scenes else None
        views = Views(self.dataset, self.train_pairs, augmentation, c.seed, scene, c.scenes)
        return load_batches(views, self._batches(), c.workers)

    def learn(self, pictures: Tensor, labels: Tensor) -> float:
        """One step on images uint8 (N, H, W, 3) and labels uint8 (N, H, W). Returns the mean loss over all processes.

        Raises FloatingPointError when the loss is not finite.
        """
        self._prepare_step()
        loss = self._loss(pictures.to(self.device), labels.to(self.device))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        loss = loss.detach()
        self.team.mean([loss, *(p.grad for p in self.network.parameters() if p.grad is not None)])
        if not math.isfinite(value := loss.item()):
            raise FloatingPointError(f"the loss of step {self.step} is {value}; try a lower --lr or --amp none")
        self.optimizer.step()
        if self.average:
            self.average.update(self.network)
        self.step += 1
        self.losses.append(value)
        return value

    def take_mean_loss(self) -> float:
        """The mean loss since the last call."""
        mean = sum(self.losses) / len(self.losses)
        self.losses.clear()
        return mean

    def _prepare_step(self) -> None:
        """Set the learning rate and the seed of dropout: functions of the step, so that a resumed run repeats them."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group.get("share", 1.0)
        seeds = np.random.SeedSequence((self.config.seed, self.team.rank, self.step))
        torch.manual_seed(int(seeds.generate_state(1)[0]))

    def _loss(self, pictures: Tensor, labels: Tensor) -> Tensor:
        x = self.network.normalise(pictures).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits, aux_logits = self.network.forward_with_aux(x)
        return self.loss(logits, aux_logits, labels)

    @property
    def result(self) -> AlignSeg:
        """The network that is evaluated and saved: the moving average when there is one."""
        return cast(AlignSeg, self.average.network) if self.average else self.network

    @property
    def epoch_is_open(self) -> bool:
        """Whether all steps of an epoch are done, but not its end: validating and logging."""
        return bool(self.losses) and (self.step % self.steps_per_epoch == 0 or self.step == self.steps)

    def validate(self, stop_requested: Callable[[], bool] = lambda: False) -> Confusion:
        """Evaluate the result on whole images of val, distributed over the processes.

        stop_requested: asked before each image. Raises Stopped when it is true in any process.
        """
        self.team.broadcast(self.result)
        predict = with_network(self.result, pad_to_raster(whole_image(self.result, bf16=self.bf16)))
        confusion = evaluate(predict, self.dataset, self._own_val_pairs(stop_requested))
        self.team.total(torch.from_numpy(confusion.counts))
        self._in_training_mode(self.network)
        return confusion

    def _own_val_pairs(self, stop_requested: Callable[[], bool]) -> Iterator[Pair]:
        """Those of this process, in rounds of one for each process, so that all stop in the same round."""
        pairs, team = evenly(self.val_pairs, self.config.val_images), self.team
        for start in range(0, len(pairs), team.size):
            if team.any(stop_requested()):
                raise Stopped
            yield from pairs[start : start + team.size][team.rank : team.rank + 1]

    def keep_if_best(self, miou: float, path: Path) -> bool:
        """Write the result to `path` if it is the best on val so far, or if val was trained on and measures nothing."""
        if not (miou > self.best or "val" in self.config.train_on):
            return False
        self.best = miou
        if self.team.is_main:
            checkpoint.save(path, self.result, metadata=self._facts(miou))
        return True

    def _facts(self, miou: float) -> dict[str, str]:
        """Metadata of the weights."""
        c = self.config
        measured_on = {"val_images": c.val_images} if c.val_images else {}
        facts = {
            "data": c.data,
            "train_on": f"{c.train_on} without {c.hold_out}" if c.hold_out else c.train_on,
            "scenes": c.scenes,
            "step": self.step,
            "held_out_miou" if c.hold_out else "val_miou": round(miou, 5),
            **measured_on,
        }
        return {name: str(value) for name, value in facts.items()}

    def save(self, path: Path) -> None:
        """Write the state of the run atomically; the main process alone writes."""
        if not self.team.is_main:
            return
        state = {
            "config": asdict(self.config),
            "step": self.step,
            "best": self.best,
            "losses": self.losses,
            "network": self.network.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
        }
        save_state(path, state)

    def load(self, path: Path) -> None:
        """Restore what `save` wrote."""
        state = load_state(path)
        self.step, self.best = state["step"], state["best"]
        self.losses = state["losses"]
        self.network.load_state_dict(state["network"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
