"""A training run: the network, its optimiser and average, one step after another, saved and resumed whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from model_export import checkpoint
from model_export.alignseg import AlignSeg
from training import pretrained
from training.augment import Augmentation
from training.config import Config
from training.data import hold_out
from training.datasets import DATASETS
from training.ema import MovingAverage
from training.evaluate import evaluate
from training.loop import precision
from training.losses import make_loss
from training.metrics import Confusion
from training.parallel import Team
from training.predict import with_network
from training.pretrained import Fit
from training.protocols import on_raster, whole
from training.scene import render
from training.schedule import learning_rate
from training.state import load_state, save_state
from training.views import Batches, Views, load_batches
from training.weighting import class_shares, class_weights


class Trainer:
    """One run, at `step` steps done of `steps`."""

    def __init__(self, config: Config, device: torch.device, team: Team | None = None) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device, self.team = config, device, team or Team()
        self.bf16, self.precision = precision.choose(config.amp, device.type)
        self.dataset = DATASETS[config.data]
        self.train_pairs, self.val_pairs = hold_out.train_and_val(
            self.dataset, Path(config.root), config.train_on, config.hold_out
        )
        self.step = 0
        self.best = -1.0  # below any mIoU, so that the first weights evaluated are kept
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
        """Put weights from elsewhere in place of the random ones; raises what pretrained.load raises."""
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
        """Steps in one pass over the pictures."""
        return self._batches().steps_per_epoch

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.config.iterations or self.config.epochs * self.steps_per_epoch

    @property
    def rate(self) -> float:
        """The learning rate of the step in hand."""
        return learning_rate(self.step, self.steps, self.config.lr, self.config.warmup)

    def _batches(self) -> Batches:
        c, team = self.config, self.team
        return Batches(len(self.train_pairs), c.batch, c.seed, self.step, team.rank, team.size)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the steps still to do: pictures uint8 (N, H, W, 3) and labels uint8 (N, H, W)."""
        c = self.config
        augmentation = Augmentation(
            c.crop_size, c.scale_range, c.stretch, 0.5, c.colour, c.hue, c.blur, corrupt=c.corrupt
        )
        scene = render if c.scenes else None
        views = Views(self.dataset, self.train_pairs, augmentation, c.seed, scene, c.scenes)
        return load_batches(views, self._batches(), c.workers)

    def learn(self, pictures: Tensor, labels: Tensor) -> float:
        """One step on pictures uint8 (N, H, W, 3) and labels uint8 (N, H, W); returns the team's mean loss.

        Raises FloatingPointError when the loss is no longer a number.
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
        """The mean loss of the epoch, which is then forgotten."""
        mean = sum(self.losses) / len(self.losses)
        self.losses.clear()
        return mean

    def _prepare_step(self) -> None:
        """The learning rate and the seed of dropout, both functions of the step, so that a resumed run has the same."""
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
        """The network that is evaluated and kept: the average when there is one."""
        return cast(AlignSeg, self.average.network) if self.average else self.network

    def validate(self) -> Confusion:
        """The result on val, whole pictures, shared out among the team; then training goes on."""
        self.team.follow_leader(self.result)
        predict = with_network(self.result, on_raster(whole(self.result, bf16=self.bf16)))
        confusion = evaluate(predict, self.dataset, self.val_pairs[self.team.rank :: self.team.size])
        self.team.total(torch.from_numpy(confusion.counts))
        self._in_training_mode(self.network)
        return confusion

    def keep_if_best(self, miou: float, path: Path) -> bool:
        """Write the result to `path` if none before was better on val, or if val says nothing: it was trained on."""
        if not (miou > self.best or "val" in self.config.train_on):
            return False
        self.best = miou
        if self.team.leads:
            checkpoint.save(path, self.result, metadata=self._facts(miou))
        return True

    def _facts(self, miou: float) -> dict[str, str]:
        """What weights should say of themselves."""
        c = self.config
        facts = {
            "data": c.data,
            "train_on": f"{c.train_on} without {c.hold_out}" if c.hold_out else c.train_on,
            "scenes": c.scenes,
            "step": self.step,
            "held_out_miou" if c.hold_out else "val_miou": round(miou, 5),
        }
        return {name: str(value) for name, value in facts.items()}

    def save(self, path: Path) -> None:
        """Everything, atomically, by the team's leader."""
        if not self.team.leads:
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
        """Go on where `save` was called."""
        state = load_state(path)
        self.step, self.best = state["step"], state["best"]
        self.losses = state["losses"]
        self.network.load_state_dict(state["network"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def make_optimizer(network: nn.Module, config: Config) -> torch.optim.Optimizer:
    """SGD with momentum 0.9, or AdamW; weight decay on kernels alone unless `decay_norms`.

    A group's "share" is what it gets of the learning rate; without one, all of it.
    """
    if config.backbone_lr == 1.0:
        groups = _by_decay(network.parameters(), config)
    else:
        names = dict(network.named_parameters())
        backbone = [parameter for name, parameter in names.items() if name.startswith("backbone.")]
        decoder = [parameter for name, parameter in names.items() if not name.startswith("backbone.")]
        groups = [{**group, "share": config.backbone_lr} for group in _by_decay(backbone, config)]
        groups += _by_decay(decoder, config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.lr)


def _by_decay(parameters: Iterable[nn.Parameter], config: Config) -> list[dict[str, Any]]:
    """Kernels, which decay, and norms and biases, which decay only with `decay_norms`."""
    kernels: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in parameters:
        (kernels if parameter.ndim > 1 or config.decay_norms else others).append(parameter)
    return [{"params": kernels, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
