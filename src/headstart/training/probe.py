"""Stage 1: the linear probe. A head on cached features, trained in seconds.

It gives a first honest score, and the head from which fine-tuning starts: a head that fits spares the backbone the
large, random gradients of the first epochs.

References:
    Kumar et al.: "Fine-tuning can distort pretrained features and underperform out-of-distribution", arXiv 2202.10054.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.randomness import permutation
from headstart.recipe import Recipe
from headstart.training.history import Row, epoch_row
from headstart.training.optimizers import make_adamw, set_lr
from headstart.training.schedules import warmup_cosine

if TYPE_CHECKING:
    from headstart.models.backbones import InputContract
    from headstart.training.tasks import Task

BATCH_SIZE = 128
"""Samples a step of the probe: features are small, larger batches are faster and score the same."""


LOWER_IS_BETTER = ("log_loss", "nme")
"""Monitored scores that are errors."""


@dataclass(frozen=True)
class TargetFeatures:
    """Features and targets of one split, and the samples they are of.

    Attributes:
        features: Shape (n, features), float32.
        targets: What the task's loss takes, each of n rows.
        samples: What the task's scores take.
    """

    features: Tensor
    targets: tuple[Tensor, ...]
    samples: Any = None

    @classmethod
    def from_arrays(
        cls, features: NDArray[np.float32], targets: tuple[Tensor, ...], samples: Any = None
    ) -> TargetFeatures:
        """Copy features (a part of a memory-mapped file, as a rule) into a tensor."""
        return cls(torch.from_numpy(np.array(features, np.float32)), targets, samples)

    def to(self, device: torch.device) -> TargetFeatures:
        """Give them on a device."""
        targets = tuple(target.to(device) for target in self.targets)
        return TargetFeatures(self.features.to(device), targets, self.samples)

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class ProbeResult:
    """The best epoch's head weights, its scores on validation, and a row per epoch."""

    head: dict[str, Tensor]
    scores: dict[str, float] = field(default_factory=dict)
    epoch: int = 0
    rows: tuple[Row, ...] = ()


def is_better(score: float, than: float | None, *, monitor: str) -> bool:
    """Say whether a score beats another: lower for losses and errors, higher for the rest; anything beats none.

    Examples:
        >>> is_better(0.3, 0.4, monitor="log_loss"), is_better(0.3, 0.4, monitor="accuracy")
        (True, False)
    """
    if than is None:
        return True
    return score < than if monitor in LOWER_IS_BETTER else score > than


def fit_probe(
    head: Any,
    train: TargetFeatures,
    validation: TargetFeatures,
    recipe: Recipe,
    *,
    task: Task,
    contract: InputContract,
    on_epoch: Callable[[Row], None] = lambda _: None,
) -> ProbeResult:
    """Train a head on features with AdamW and a cosine, and keep the epoch that scores best on validation.

    Args:
        head: Maps features to outputs; trained in place and left at its best epoch.
        train: What it learns from.
        validation: What picks the epoch.
        recipe: ``probe_epochs``, ``probe_lr``, ``weight_decay``, ``monitor``, ``seed``.
        task: Gives loss and scores.
        contract: How the network sees a photo.
        on_epoch: Called with each epoch's row.
    """
    device = next(head.parameters()).device
    train, validation = train.to(device), validation.to(device)
    optimizer = make_adamw(head.named_parameters(), lr=recipe.probe_lr, weight_decay=recipe.weight_decay)
    best: ProbeResult | None = None
    rows: list[Row] = []
    for epoch in range(recipe.probe_epochs):
        start = time.perf_counter()
        loss, lr = _train_epoch(head, train, optimizer, recipe, task=task, epoch=epoch)
        scores = task.scores(_answers(head, validation.features).cpu(), validation.samples, contract)
        seconds = time.perf_counter() - start
        row = epoch_row("probe", epoch + 1, lr=lr, train_loss=loss, scores=scores, seconds=seconds, num=len(train))
        rows.append(row)
        on_epoch(row)
        if is_better(scores[recipe.monitor], best and best.scores[recipe.monitor], monitor=recipe.monitor):
            best = ProbeResult({name: value.clone() for name, value in head.state_dict().items()}, scores, epoch + 1)
    kept = best or ProbeResult(dict(head.state_dict()))
    head.load_state_dict(kept.head)
    return ProbeResult(kept.head, kept.scores, kept.epoch, tuple(rows))


def _train_epoch(
    head: nn.Module,
    train: TargetFeatures,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    *,
    task: Task,
    epoch: int,
) -> tuple[float, float]:
    head.train()
    num_samples, steps = len(train), -(-len(train) // BATCH_SIZE)
    order = torch.from_numpy(permutation(recipe.seed, stream="order", epoch=epoch, num_samples=num_samples))
    torch.manual_seed(recipe.seed + epoch)
    total, lr = 0.0, 0.0
    for step in range(steps):
        chosen = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
        factor = warmup_cosine(epoch * steps + step, total_steps=recipe.probe_epochs * steps, warmup_steps=steps)
        lr = recipe.probe_lr * factor
        set_lr(optimizer, lr)
        loss = task.loss(head, head(train.features[chosen]), tuple(target[chosen] for target in train.targets))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(chosen)
    return total / num_samples, lr


@torch.no_grad()
def _answers(head: Any, features: Tensor) -> Tensor:
    head.eval()
    if not len(features):
        return torch.empty(0, 0)
    return torch.cat([head.decode(head(chunk)) for chunk in features.split(8192)])
