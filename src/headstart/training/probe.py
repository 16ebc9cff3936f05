"""Stage 1: the linear probe. A classifier on cached features, trained in seconds.

It gives a first honest score, and the head from which fine-tuning starts: a head that fits spares the backbone the
large, random gradients of the first epochs.

References:
    Kumar et al.: "Fine-tuning can distort pretrained features and underperform out-of-distribution", arXiv 2202.10054.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.evaluation.metrics import classification_scores
from headstart.randomness import permutation
from headstart.recipe import Recipe
from headstart.training.history import Row
from headstart.training.optimizers import make_adamw, set_lr
from headstart.training.schedules import warmup_cosine

BATCH_SIZE = 128
"""Samples a step of the probe: features are small, larger batches are faster and score the same."""


@dataclass(frozen=True)
class LabelledFeatures:
    """Features and labels of one split: shapes (n, features) float32 and (n,) int64."""

    features: Tensor
    labels: Tensor

    @classmethod
    def from_arrays(cls, features: NDArray[np.float32], labels: NDArray[np.integer]) -> LabelledFeatures:
        """Copy arrays into tensors."""
        return cls(torch.from_numpy(np.array(features, np.float32)), torch.from_numpy(np.array(labels, np.int64)))

    def to(self, device: torch.device) -> LabelledFeatures:
        """Give them on a device."""
        return LabelledFeatures(self.features.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ProbeResult:
    """The best epoch's head weights, its scores on validation, and a row per epoch."""

    head: dict[str, Tensor]
    scores: dict[str, float]
    epoch: int
    rows: tuple[Row, ...]


def is_better(score: float, than: float | None, *, monitor: str) -> bool:
    """Say whether a score beats another: lower for losses, higher for the rest; anything beats none.

    Examples:
        >>> is_better(0.3, 0.4, monitor="log_loss"), is_better(0.3, 0.4, monitor="accuracy")
        (True, False)
    """
    if than is None:
        return True
    return score < than if monitor == "log_loss" else score > than


def fit_probe(
    head: nn.Module,
    train: LabelledFeatures,
    validation: LabelledFeatures,
    recipe: Recipe,
    *,
    on_epoch: Callable[[Row], None] = lambda _: None,
) -> ProbeResult:
    """Train a head on features with AdamW and a cosine, and keep the epoch that scores best on validation.

    Args:
        head: Maps features to logits; trained in place and left at its best epoch.
        train: What it learns from.
        validation: What picks the epoch.
        recipe: ``probe_epochs``, ``probe_lr``, ``weight_decay``, ``label_smoothing``, ``monitor``, ``seed``.
        on_epoch: Called with each epoch's row.
    """
    device = next(head.parameters()).device
    train, validation_labels = train.to(device), validation.labels.numpy()
    validation = validation.to(device)
    optimizer = make_adamw(head.named_parameters(), lr=recipe.probe_lr, weight_decay=recipe.weight_decay)
    steps = -(-len(train.labels) // BATCH_SIZE)
    best: ProbeResult | None = None
    rows: list[Row] = []
    for epoch in range(recipe.probe_epochs):
        start = time.perf_counter()
        loss, lr = _train_epoch(head, train, optimizer, recipe, epoch=epoch, steps=steps)
        scores = score_logits(_logits(head, validation.features).cpu(), validation_labels)
        seconds = time.perf_counter() - start
        row = epoch_row(
            "probe", epoch + 1, lr=lr, train_loss=loss, scores=scores, seconds=seconds, num=len(train.labels)
        )
        rows.append(row)
        on_epoch(row)
        if is_better(scores[recipe.monitor], best and best.scores[recipe.monitor], monitor=recipe.monitor):
            weights = {name: value.clone() for name, value in head.state_dict().items()}
            best = ProbeResult(weights, scores, epoch + 1, ())
    kept = best or ProbeResult(dict(head.state_dict()), {}, 0, ())
    head.load_state_dict(kept.head)
    return ProbeResult(kept.head, kept.scores, kept.epoch, tuple(rows))


def score_logits(logits: Tensor, labels: NDArray[np.integer]) -> dict[str, float]:
    """Give the classification scores of logits, shape (n, classes)."""
    return classification_scores(torch.softmax(logits.double(), dim=1).numpy(), labels)


def epoch_row(
    stage: str, epoch: int, *, lr: float, train_loss: float, scores: dict[str, float], seconds: float, num: int
) -> dict[str, str | int | float]:
    """Put one epoch into the form of history.csv."""
    return {
        "stage": stage,
        "epoch": epoch,
        "lr": lr,
        "train_loss": train_loss,
        "validation_loss": scores["log_loss"],
        "validation_accuracy": scores["accuracy"],
        "validation_balanced_accuracy": scores["balanced_accuracy"],
        "validation_macro_f1": scores["macro_f1"],
        "images_per_second": num / max(seconds, 1e-9),
        "seconds": seconds,
        "wait_seconds": 0.0,
    }


def _train_epoch(
    head: nn.Module,
    train: LabelledFeatures,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    *,
    epoch: int,
    steps: int,
) -> tuple[float, float]:
    head.train()
    num_samples = len(train.labels)
    order = torch.from_numpy(permutation(recipe.seed, stream="order", epoch=epoch, num_samples=num_samples))
    torch.manual_seed(recipe.seed + epoch)
    total, lr = 0.0, 0.0
    for step in range(steps):
        chosen = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
        factor = warmup_cosine(epoch * steps + step, total_steps=recipe.probe_epochs * steps, warmup_steps=steps)
        lr = recipe.probe_lr * factor
        set_lr(optimizer, lr)
        logits = head(train.features[chosen])
        loss = F.cross_entropy(logits, train.labels[chosen], label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(chosen)
    return total / num_samples, lr


@torch.no_grad()
def _logits(head: nn.Module, features: Tensor) -> Tensor:
    head.eval()
    return torch.cat([head(chunk) for chunk in features.split(8192)]) if len(features) else torch.empty(0, 0)
